//! Supervised fine-tuning: what is learnt, by how much, and that it resumes to the same bits.

use prefgrad::Error;
use prefgrad::train::{SftOptions, SftStep, SftTrainer, TuningOptions, checkpoint};

use crate::tools::{gpu, spread};
use crate::twin::{Texts, Twin, close, config, records};

fn options(steps: u64) -> SftOptions {
    SftOptions {
        tuning: TuningOptions {
            batch_tokens: 512,
            steps,
            learning_rate: 3e-3,
            evaluate_every: 5,
            read_every: 4,
            ..TuningOptions::default()
        },
        ..SftOptions::default()
    }
}

fn trainer(options: SftOptions) -> SftTrainer {
    let trainer = SftTrainer::new(gpu(), &config(), options, &records(), &records()).unwrap();
    spread(trainer.policy().parameters());
    trainer
}

fn advance(trainer: &mut SftTrainer, updates: u64) -> Vec<SftStep> {
    let mut steps = Vec::new();
    while trainer.updates() < updates && !trainer.is_over() {
        steps.extend(trainer.step().unwrap().unwrap_or_default().steps);
        if trainer.evaluation_is_due() {
            trainer.evaluate().unwrap();
        }
    }
    steps
}

/// Mean negative log-probability and number of the tokens that should be learnt, by the `f64` twin.
fn expected(trainer: &SftTrainer, all_responses: bool, all_tokens: bool) -> (f64, u64) {
    // By the fixture: the responses that nothing was preferred to.
    let best = [0, 1, 0, 2, 0];
    let records = records();
    let mut answers: Vec<Texts<'_>> = Vec::new();
    for (record, best) in records.iter().zip(best) {
        for (index, answer) in record.answers.iter().enumerate() {
            if all_responses || index == best {
                answers.push((&record.prompt, answer));
            }
        }
    }
    let whole: Vec<Vec<u32>> = answers.iter().map(|(p, a)| [*p, *a].concat()).collect();
    if all_tokens {
        answers = whole.iter().map(|text| text.split_at(1)).collect();
    }
    let twin = Twin::of(trainer.policy());
    let nothing = vec![0.0; answers.len()];
    let logprobs = twin.answers(&answers, &nothing).0.concat();
    let mean = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    (mean, logprobs.len() as u64)
}

#[test]
fn only_what_is_asked_for_is_learnt() {
    for (all_responses, all_tokens) in [(false, false), (true, false), (false, true), (true, true)]
    {
        let options = SftOptions {
            all_responses,
            all_tokens,
            ..options(1)
        };
        let mut trainer = trainer(options);
        let (loss, tokens) = expected(&trainer, all_responses, all_tokens);
        close(trainer.evaluate().unwrap(), loss, 1e-5, "validation");
        let step = trainer.step().unwrap().unwrap().steps.remove(0);
        close(step.loss, loss, 1e-5, "loss");
        // A prompt's tokens are there once for all responses.
        let shared = all_responses && all_tokens;
        assert!(step.targets == tokens || shared && step.targets < tokens);
    }
}

#[test]
fn the_loss_falls_and_the_best_weights_are_kept() {
    let mut trainer = trainer(options(40));
    let steps = advance(&mut trainer, u64::MAX);
    assert_eq!(steps.len(), 40, "every update is read once");
    assert!(steps[39].loss < 0.5 * steps[0].loss, "{steps:?}");
    trainer.finish().unwrap();
    let best = trainer.best().unwrap().loss;
    let loss = trainer.evaluate().unwrap();
    assert!((loss - best).abs() < 1e-6, "{loss} {best}");
}

#[test]
fn a_resumed_run_reaches_the_same_bits() {
    let bits = |trainer: &SftTrainer| -> Vec<u32> {
        let parameters = trainer.policy().parameters();
        let weights = parameters.read(gpu(), |c| &c.weights).unwrap();
        weights.into_iter().flatten().map(f32::to_bits).collect()
    };
    let mut whole = trainer(options(20));
    advance(&mut whole, 12);
    let mut first = trainer(options(20));
    advance(&mut first, 7);
    first.read().unwrap();
    let folder = tempfile::tempdir().unwrap();
    first.save_checkpoint(folder.path()).unwrap();
    let path = checkpoint::newest(folder.path()).unwrap().unwrap();
    let mut second = SftTrainer::resume(gpu(), &path, &records(), &records()).unwrap();
    advance(&mut second, 12);
    assert_eq!(bits(&second), bits(&whole));
    assert_eq!(second.best(), whole.best());
}

#[test]
fn a_record_that_no_batch_holds_is_named_at_once() {
    let small = SftOptions {
        tuning: TuningOptions {
            batch_tokens: 16,
            ..TuningOptions::default()
        },
        ..SftOptions::default()
    };
    let error = SftTrainer::new(gpu(), &config(), small, &records(), &[])
        .err()
        .unwrap();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert!(error.to_string().contains("line 2"), "{error}");
}
