//! DPO: equal to its `f64` twin, it learns, it resumes to the same bits, it names what is wrong.

use prefgrad::Error;
use prefgrad::data::TokenRecord;
use prefgrad::kernels::policy::dpo_loss::DpoLoss;
use prefgrad::model::ModelConfig;
use prefgrad::reference::policy::dpo_loss::{DpoAnswer, DpoLossOptions, DpoPair, dpo_loss};
use prefgrad::train::{
    AdamW, DpoOptions, DpoStep, DpoTrainer, DpoWarning, TuningOptions, checkpoint,
};

use crate::tools::{gpu, pair, spread};
use crate::twin::{Texts, Twin, close, config, records};

fn exact_options(loss: DpoLoss, label_smoothing: f32, beta: f32) -> DpoOptions {
    DpoOptions {
        loss,
        label_smoothing,
        beta,
        tuning: TuningOptions {
            batch_tokens: 512,
            accumulation: 2,
            steps: 3,
            learning_rate: 2e-3,
            warmup: 0.0,
            floor: 1.0,
            read_every: 1,
            optimizer: AdamW {
                weight_decay: 0.05,
                max_grad_norm: 0.5,
                ..AdamW::default()
            },
            ..TuningOptions::default()
        },
    }
}

fn spread_trainer(options: DpoOptions, records: &[TokenRecord]) -> DpoTrainer {
    let trainer = DpoTrainer::new(gpu(), &config(), options, records, &[]).unwrap();
    spread(trainer.policy().parameters());
    trainer
}

/// Prompt and answer of the chosen and the rejected response of every preference.
fn sides(records: &[TokenRecord]) -> (Vec<Texts<'_>>, Vec<f64>) {
    let (mut answers, mut weights) = (Vec::new(), Vec::new());
    for record in records {
        for preference in &record.preferences {
            for index in [preference.chosen, preference.rejected] {
                answers.push((&record.prompt[..], &record.answers[index][..]));
            }
            weights.push(f64::from(preference.weight));
        }
    }
    (answers, weights)
}

fn compare_three_updates(loss: DpoLoss, label_smoothing: f32, beta: f32) -> Vec<DpoStep> {
    let records = records();
    let options = exact_options(loss, label_smoothing, beta);
    let mut trainer = spread_trainer(options.clone(), &records);
    let mut twin = Twin::of(trainer.policy());
    let (answers, weights) = sides(&records);
    let sums = |logprobs: &[Vec<f64>]| -> Vec<f64> {
        logprobs.iter().map(|tokens| tokens.iter().sum()).collect()
    };
    let nothing = vec![0.0; answers.len()];
    let reference = sums(&twin.answers(&answers, &nothing).0);
    let mut steps = Vec::new();
    while !trainer.is_over() {
        let (logprobs, _) = twin.answers(&answers, &nothing);
        let answer = |index: usize| DpoAnswer {
            logprobs: logprobs[index].clone(),
            entropies: Vec::new(),
            ref_logp: reference[index],
        };
        let pairs: Vec<DpoPair> = (0..)
            .zip(&weights)
            .map(|(p, &weight)| DpoPair {
                chosen: answer(2 * p),
                rejected: answer(2 * p + 1),
                weight,
            })
            .collect();
        let expected = dpo_loss(
            &pairs,
            &DpoLossOptions {
                loss,
                beta: f64::from(options.beta),
                label_smoothing: f64::from(label_smoothing),
                pair_scale: 1.0 / weights.iter().sum::<f64>(),
            },
        );
        let (_, gradients) = twin.answers(&answers, &expected.dlogprobs.concat());
        let norm = twin.update(&gradients, &options.tuning.optimizer, 2e-3);

        let mut reading = trainer.step().unwrap().unwrap();
        let step = reading.steps.remove(0);
        let number = weights.len() as f64;
        let metrics = &expected.metrics;
        close(step.loss, metrics.loss, 1e-5, "loss");
        let pairs = [
            ("margin", step.margin, metrics.margin),
            ("chosen reward", step.chosen_reward, metrics.chosen_reward),
            (
                "rejected reward",
                step.rejected_reward,
                metrics.rejected_reward,
            ),
            ("chosen", step.chosen_logprob, metrics.chosen_logprob),
            ("rejected", step.rejected_logprob, metrics.rejected_logprob),
        ];
        for (what, actual, sum) in pairs {
            close(actual, sum / number, 1e-5, what);
        }
        close(f64::from(reading.grad_norm) / norm, 1.0, 1e-4, "norm");
        assert_eq!(step.pairs, 2 * weights.len() as u64);
        steps.push(step);
    }
    steps
}

#[test]
fn three_updates_of_dpo_equal_the_reference() {
    let steps = compare_three_updates(DpoLoss::Sigmoid, 0.0, 0.5);
    assert!((steps[0].loss - std::f64::consts::LN_2).abs() < 1e-7);
    let first = &steps[0];
    assert_eq!((first.chosen_reward, first.rejected_reward), (0.0, 0.0));
    assert_eq!((first.accuracy, first.margin), (0.0, 0.0));
    assert!(first.warnings().is_empty());
    assert!(steps[2].loss < 0.6 && steps[2].accuracy > 0.5, "{steps:?}");
}

#[test]
fn three_updates_of_the_other_losses_equal_the_reference() {
    for (loss, label_smoothing, beta) in [
        (DpoLoss::Sigmoid, 0.2, 0.5),
        (DpoLoss::SigmoidNorm, 0.0, 0.5),
        (DpoLoss::Ipo { per_token: true }, 0.0, 0.5),
        (DpoLoss::Hinge, 0.0, 0.02),
        (DpoLoss::Robust, 0.1, 0.5),
    ] {
        compare_three_updates(loss, label_smoothing, beta);
    }
}

const GOOD: u32 = 7;

/// Answers with more of one token are preferred.
fn easy(count: u32, offset: u32) -> Vec<TokenRecord> {
    (0..count)
        .map(|i| {
            let noise = |k: u32| 10 + ((i + offset) * 37 + k * 11) % 40;
            let prompt: Vec<u32> = (0..4 + i % 5).map(|k| noise(k + 20)).collect();
            let chosen = [noise(1), GOOD, noise(2), GOOD, 1];
            let rejected = [noise(3), noise(4), noise(5), GOOD, 1];
            let mut record = pair(&prompt, &chosen, &rejected);
            record.line = i as usize + 1;
            record
        })
        .collect()
}

fn small() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 1,
        ..config()
    }
}

fn trainer(tuning: TuningOptions) -> DpoTrainer {
    let options = DpoOptions {
        tuning: TuningOptions {
            batch_tokens: 256,
            accumulation: 2,
            evaluate_every: 10,
            read_every: 4,
            ..tuning
        },
        ..DpoOptions::default()
    };
    DpoTrainer::new(gpu(), &small(), options, &easy(120, 0), &easy(40, 500)).unwrap()
}

fn tuning() -> TuningOptions {
    TuningOptions {
        steps: 30,
        learning_rate: 3e-3,
        ..TuningOptions::default()
    }
}

fn advance(trainer: &mut DpoTrainer, updates: u64) -> Vec<DpoStep> {
    let mut steps = Vec::new();
    while trainer.updates() < updates && !trainer.is_over() {
        steps.extend(trainer.step().unwrap().unwrap_or_default().steps);
        if trainer.evaluation_is_due() {
            trainer.evaluate().unwrap();
        }
    }
    steps
}

fn bits(trainer: &DpoTrainer) -> Vec<u32> {
    let parameters = trainer.policy().parameters();
    let weights = parameters.read(gpu(), |c| &c.weights).unwrap();
    weights.into_iter().flatten().map(f32::to_bits).collect()
}

#[test]
fn it_learns_what_is_preferred() {
    let mut trainer = trainer(tuning());
    let steps = advance(&mut trainer, u64::MAX);
    assert_eq!(steps.len(), 30, "every update is read once");
    trainer.finish().unwrap();
    let evaluation = trainer.evaluate().unwrap();
    assert!(evaluation.accuracy > 0.9, "{evaluation:?}");
    assert_eq!(evaluation.pairs, 40);
    let best = trainer.best().unwrap().loss;
    assert!((evaluation.loss - best).abs() < 1e-6, "the best weights");
}

#[test]
fn a_resumed_run_reaches_the_same_bits() {
    for stop in [2, 15] {
        let mut whole = trainer(tuning());
        advance(&mut whole, 20);
        let mut first = trainer(tuning());
        advance(&mut first, stop);
        first.read().unwrap();
        let folder = tempfile::tempdir().unwrap();
        first.save_checkpoint(folder.path()).unwrap();
        let path = checkpoint::newest(folder.path()).unwrap().unwrap();
        let (train, validation) = (easy(120, 0), easy(40, 500));
        let mut second = DpoTrainer::resume(gpu(), &path, &train, &validation).unwrap();
        assert_eq!(second.updates(), stop);
        advance(&mut second, 20);
        assert_eq!(bits(&second), bits(&whole), "stopped after update {stop}");
        assert_eq!(second.best(), whole.best());
        let error = DpoTrainer::resume(gpu(), &path, &train, &validation[1..])
            .err()
            .unwrap();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    }
}

#[test]
fn training_stops_when_validation_no_longer_gains() {
    let mut trainer = DpoTrainer::new(
        gpu(),
        &small(),
        DpoOptions {
            tuning: TuningOptions {
                batch_tokens: 256,
                steps: 1000,
                learning_rate: 0.0,
                evaluate_every: 1,
                patience: 3,
                ..TuningOptions::default()
            },
            ..DpoOptions::default()
        },
        &easy(20, 0),
        &easy(10, 500),
    )
    .unwrap();
    advance(&mut trainer, u64::MAX);
    assert_eq!((trainer.updates(), trainer.best().unwrap().step), (4, 1));
}

#[test]
fn a_given_reference_takes_the_place_of_the_policy() {
    let records = records();
    let options = exact_options(DpoLoss::Sigmoid, 0.0, 0.5);
    let mut trainer = spread_trainer(options, &records);
    let mut given: Vec<Vec<f32>> = records
        .iter()
        .map(|record| vec![0.0; record.answers.len()])
        .collect();
    trainer.set_reference(&given, &[]).unwrap();
    let step = trainer.step().unwrap().unwrap().steps.remove(0);
    close(step.chosen_shift, step.chosen_logprob, 1e-6, "shift");
    assert!(matches!(step.warnings()[0], DpoWarning::NotTheReference(_)));
    given[3].pop();
    let error = trainer.set_reference(&given, &[]).unwrap_err().to_string();
    assert!(error.contains("response 2 of record 3"), "{error}");
}

#[test]
fn what_is_not_finite_is_named_and_changes_nothing() {
    let nan = |trainer: &DpoTrainer| {
        let parameters = trainer.policy().parameters();
        let name = "transformer.ln_f.bias";
        parameters.write(gpu(), name, &[f32::NAN; 32]).unwrap();
    };
    let mut unprepared = trainer(tuning());
    nan(&unprepared);
    let error = unprepared.step().err().unwrap();
    assert!(error.to_string().contains("reference"), "{error}");

    let mut prepared = trainer(tuning());
    prepared.prepare().unwrap();
    nan(&prepared);
    let before = bits(&prepared);
    let error = (0..4).find_map(|_| prepared.step().err()).unwrap();
    let Error::NonFinite {
        what,
        step,
        records,
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((*what, *step), ("loss", 1));
    assert!(!records.is_empty());
    assert_eq!(bits(&prepared), before);
}

#[test]
fn records_without_a_prompt_are_refused() {
    let records = [pair(&[], &[2, 3], &[4])];
    let error = DpoTrainer::new(gpu(), &small(), DpoOptions::default(), &records, &[])
        .err()
        .unwrap();
    assert!(error.to_string().contains("line 1"), "{error}");
}
