//! The trainer: it learns, it resumes to the same bits, it names what is not finite.

use prefgrad::Error;
use prefgrad::data::TokenRecord;
use prefgrad::model::{Gpt2Config, ModelConfig};
use prefgrad::train::{Evaluation, Phase, RewardOptions, RewardTrainer, checkpoint, score_records};

use crate::tools::{gpu, pair};

const GOOD: u32 = 7;

/// Answers with more of one token are preferred: easy to learn, and impossible from length alone.
fn records(count: u32, offset: u32) -> Vec<TokenRecord> {
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

fn config() -> ModelConfig {
    Gpt2Config {
        vocab_size: 64,
        n_positions: 32,
        n_embd: 32,
        n_layer: 1,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: Some(1),
        pad_token_id: Some(0),
        tie_word_embeddings: true,
    }
    .into()
}

fn options() -> RewardOptions {
    RewardOptions {
        batch_tokens: 256,
        accumulation: 2,
        pretrain_steps: 4,
        steps: 30,
        learning_rate: 3e-3,
        evaluate_every: 10,
        read_every: 4,
        ..RewardOptions::default()
    }
}

fn trainer(options: RewardOptions) -> RewardTrainer {
    RewardTrainer::new(gpu(), &config(), options, records(120, 0), records(40, 500)).unwrap()
}

fn advance(trainer: &mut RewardTrainer, updates: u64) -> Vec<f64> {
    let mut losses = Vec::new();
    while trainer.updates() < updates && trainer.phase() != Phase::Done {
        let reading = trainer.step().unwrap().unwrap_or_default();
        losses.extend(reading.steps.iter().map(|step| step.loss));
        if trainer.evaluation_is_due() {
            trainer.evaluate().unwrap();
        }
    }
    losses
}

fn bits(trainer: &RewardTrainer) -> Vec<u32> {
    let weights = trainer
        .model()
        .parameters()
        .read(gpu(), |c| &c.weights)
        .unwrap();
    weights.into_iter().flatten().map(f32::to_bits).collect()
}

#[test]
fn it_learns_what_is_preferred() {
    let mut trainer = trainer(options());
    let losses = advance(&mut trainer, u64::MAX);
    assert_eq!(losses.len(), 34, "every update is read once");
    assert!(losses[3] < losses[0], "the language loss falls: {losses:?}");
    trainer.finish().unwrap();
    let fresh = records(60, 9000);
    let rewards = score_records(trainer.model(), &fresh).unwrap();
    let evaluation = Evaluation::of(&fresh, &rewards);
    assert!(evaluation.accuracy() > 0.9, "{evaluation:?}");
}

#[test]
fn a_resumed_run_reaches_the_same_bits() {
    for stop in [2, 4, 15] {
        let mut whole = trainer(options());
        advance(&mut whole, 20);
        let mut first = trainer(options());
        advance(&mut first, stop);
        first.read().unwrap();
        let folder = tempfile::tempdir().unwrap();
        first.save_checkpoint(folder.path()).unwrap();
        drop(first);
        let path = checkpoint::newest(folder.path()).unwrap().unwrap();
        let (train, validation) = (records(120, 0), records(40, 500));
        let mut second = RewardTrainer::resume(gpu(), &path, train, validation).unwrap();
        assert_eq!(second.updates(), stop);
        advance(&mut second, 20);
        assert_eq!(bits(&second), bits(&whole), "stopped after update {stop}");
        assert_eq!(second.best(), whole.best());
    }
}

#[test]
fn a_checkpoint_of_other_data_is_refused() {
    let mut first = trainer(options());
    advance(&mut first, 1);
    let folder = tempfile::tempdir().unwrap();
    first.save_checkpoint(folder.path()).unwrap();
    let path = checkpoint::newest(folder.path()).unwrap().unwrap();
    let error = RewardTrainer::resume(gpu(), &path, records(119, 0), vec![])
        .err()
        .unwrap();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
}

#[test]
fn only_the_newest_checkpoint_stays_and_half_written_ones_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = trainer(options());
    for updates in [1, 2] {
        advance(&mut trainer, updates);
        trainer.save_checkpoint(folder.path()).unwrap();
    }
    std::fs::create_dir(folder.path().join(".checkpoint-9.partial")).unwrap();
    let newest = checkpoint::newest(folder.path()).unwrap().unwrap();
    assert!(newest.ends_with("checkpoint-2"), "{}", newest.display());
    assert!(!folder.path().join("checkpoint-1").exists());
}

#[test]
fn a_loss_that_is_not_finite_names_its_records_and_changes_nothing() {
    let mut trainer = trainer(RewardOptions {
        pretrain_steps: 0,
        ..options()
    });
    let parameters = trainer.model().parameters();
    let width = config().hidden_size;
    parameters
        .write(gpu(), "score.weight", &vec![f32::NAN; width])
        .unwrap();
    let before = bits(&trainer);
    let error = (0..4).find_map(|_| trainer.step().err()).expect("an error");
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
    assert_eq!(bits(&trainer), before);
}

#[test]
fn training_stops_when_validation_no_longer_gains() {
    let mut trainer = trainer(RewardOptions {
        pretrain_steps: 0,
        steps: 1000,
        learning_rate: 0.0,
        evaluate_every: 1,
        patience: 3,
        ..options()
    });
    advance(&mut trainer, u64::MAX);
    assert_eq!(trainer.phase(), Phase::Done);
    assert_eq!(trainer.best().unwrap().step, 1);
    assert_eq!(trainer.step_in_phase(), 4);
}
