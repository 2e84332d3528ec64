//! Rewards, log-probabilities and gradients of small GPT-2 checkpoints, against figures that
//! `transformers` computed in float64.

use prefgrad::data::{PackOptions, Targets, TokenRecord};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{ModelConfig, RewardModel, load_weights, save_reward_model};
use prefgrad::reference::compare::relative_error;
use prefgrad::train::{AdamW, Optimizer, capacity_for, score_records};

use crate::support::checkpoint::{Checkpoint, load};
use crate::tools::{batch, gpu, pair, pairs};

const BOUND: f64 = 1e-5;

fn model(checkpoint: &Checkpoint, with_targets: bool) -> RewardModel {
    let config = ModelConfig::read(&checkpoint.folder).unwrap();
    let capacity = capacity_for(512, with_targets);
    let loss = PairwiseLossOptions::default();
    let model = RewardModel::to_train(gpu(), &config, capacity, &loss).unwrap();
    load_weights(gpu(), model.parameters(), &checkpoint.folder).unwrap();
    model
}

/// Row i is preferred to row i + n/2.
fn records(checkpoint: &Checkpoint) -> Vec<TokenRecord> {
    let sequences = checkpoint.sequences();
    let (chosen, rejected) = sequences.split_at(sequences.len() / 2);
    chosen
        .iter()
        .zip(rejected)
        .map(|(c, r)| pair(&[], c, r))
        .collect()
}

#[test]
fn rewards_equal_transformers() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let rewards = score_records(&model(&checkpoint, false), &records(&checkpoint)).unwrap();
    let flat: Vec<f32> = (0..2)
        .flat_map(|i| rewards.iter().map(move |pair| pair[i]))
        .collect();
    let error = relative_error(&flat, &checkpoint.expected("rewards.f64").f64());
    assert!(error < BOUND, "{error:e}");
}

#[test]
fn gradients_equal_transformers() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let model = model(&checkpoint, false);
    model
        .accumulate(&batch(&model, &records(&checkpoint), pairs(model.config())))
        .unwrap();
    compare_gradients(&checkpoint, &model);
}

#[test]
fn language_gradients_equal_transformers() {
    let Some(checkpoint) = load("gpt2_lm") else {
        return;
    };
    let model = model(&checkpoint, true);
    let records: Vec<TokenRecord> = checkpoint
        .sequences()
        .into_iter()
        .map(|sequence| TokenRecord {
            line: 1,
            prompt: vec![],
            answers: vec![sequence],
            preferences: vec![],
        })
        .collect();
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::All,
        ..pairs(model.config())
    };
    model
        .accumulate_language(&batch(&model, &records, options))
        .unwrap();
    let loss = model.read_metrics().unwrap()[0][0];
    let expected = checkpoint.figure("losses_f64", 0);
    assert!(
        (f64::from(loss) - expected).abs() < BOUND * expected,
        "{loss} {expected}"
    );
    compare_gradients(&checkpoint, &model);
}

fn compare_gradients(checkpoint: &Checkpoint, model: &RewardModel) {
    let gradients = model.parameters().read_gradients(gpu()).unwrap();
    let largest = gradients
        .iter()
        .flat_map(|(_, values)| values)
        .fold(0.0f64, |max, &x| max.max(f64::from(x.abs())));
    let mut compared = 0;
    for (spec, values) in &gradients {
        let name = format!("grad.{}", spec.name);
        if !checkpoint.expected.contains_key(&name) {
            // A language model has no reward head.
            assert!(spec.name == "score.weight" && values.iter().all(|&x| x == 0.0));
            continue;
        }
        let expected = checkpoint.expected(&name).f64();
        // A gradient that is zero in theory holds rounding noise on both sides.
        let noise = expected.iter().all(|x| x.abs() < 1e-12);
        let error = if noise {
            values
                .iter()
                .fold(0.0f64, |max, &x| max.max(f64::from(x.abs())))
                / largest
        } else {
            relative_error(values, &expected)
        };
        assert!(error < BOUND, "{name}: {error:e}");
        compared += 1;
    }
    assert!(compared >= 28, "{compared} gradients compared");
}

#[test]
fn three_steps_of_adamw_equal_pytorch() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let model = model(&checkpoint, false);
    let number = |name: &str| checkpoint.training[name].as_f64().unwrap();
    let options = AdamW {
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        ..AdamW::default()
    };
    let mut optimizer = Optimizer::new(gpu(), model.parameters(), options).unwrap();
    let batch = batch(&model, &records(&checkpoint), pairs(model.config()));
    for step in 0..3 {
        model.accumulate(&batch).unwrap();
        optimizer.step(number("lr")).unwrap();
        let norm = f64::from(optimizer.statistics().unwrap().grad_norm);
        let expected = checkpoint.figure("grad_norms_f64", step);
        assert!(
            (norm - expected).abs() < 1e-4 * expected,
            "step {step}: {norm} {expected}"
        );
        let loss = f64::from(model.read_metrics().unwrap()[0][0]);
        let expected = checkpoint.figure("losses_f64", step);
        assert!(
            (loss - expected).abs() < 1e-5,
            "step {step}: {loss} {expected}"
        );
    }
}

#[test]
fn a_saved_model_gives_the_same_rewards() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let first = model(&checkpoint, false);
    let expected = score_records(&first, &records(&checkpoint)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weights = first.parameters().read(gpu(), |c| &c.weights).unwrap();
    save_reward_model(first.parameters(), &weights, first.config(), folder.path()).unwrap();
    let config = ModelConfig::read(folder.path()).unwrap();
    let second = RewardModel::to_score(gpu(), &config, capacity_for(512, false)).unwrap();
    assert!(load_weights(gpu(), second.parameters(), folder.path()).unwrap());
    assert_eq!(
        score_records(&second, &records(&checkpoint)).unwrap(),
        expected
    );
}

#[test]
fn a_weight_file_that_does_not_fit_is_refused_by_name() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let mut config = ModelConfig::read(&checkpoint.folder).unwrap();
    config.num_hidden_layers = 1;
    let capacity = capacity_for(64, false);
    let model = RewardModel::to_score(gpu(), &config, capacity).unwrap();
    let error = load_weights(gpu(), model.parameters(), &checkpoint.folder).unwrap_err();
    assert!(error.to_string().contains("h.1."), "{error}");
    config.num_hidden_layers = 3;
    let model = RewardModel::to_score(gpu(), &config, capacity).unwrap();
    let error = load_weights(gpu(), model.parameters(), &checkpoint.folder).unwrap_err();
    assert!(error.to_string().contains("h.2."), "{error}");
}
