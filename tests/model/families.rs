//! Every model family against figures that `transformers` computed in float64: rewards,
//! log-probabilities, every parameter's gradient, three updates by AdamW, greedy tokens; and models
//! that were saved, against `transformers` itself.

use std::path::Path;
use std::process::Command;

use prefgrad::Plan;
use prefgrad::data::{Batch, PackOptions, Targets, TokenRecord, pack_all};
use prefgrad::kernels::policy::{TokenGradient, TokenLogprob};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{
    GenerateOptions, Generator, GeneratorCapacity, Head, ModelConfig, Parameters, Policy,
    PolicyOptions, Purpose, RewardModel, SamplingOptions, load_weights, save_language_model,
    save_reward_model,
};
use prefgrad::reference::compare::relative_error;
use prefgrad::train::{AdamW, AnswerLogprobs, Optimizer, capacity_for, score_records};
use serde_json::{Value, json};

use crate::support::checkpoint::Checkpoint;
use crate::tools::{batch, gpu, pair, pairs};

/// Of rewards, log-probabilities and losses, and of gradients relative to a parameter's largest.
const BOUND: f64 = 1e-5;
/// Of a gradient norm, relative.
const NORM_BOUND: f64 = 1e-5;
/// Of single weights after three updates of up to 1e-3: Adam makes much of gradients that are next
/// to nothing. PyTorch's own f32 is up to 6e-5 from its f64.
const WEIGHT_BOUND: f64 = 1e-4;
/// Of the mean difference of a parameter's weights after three updates.
const MEAN_WEIGHT_BOUND: f64 = 2e-6;

/// One test for each checkpoint, so that each failure has its name.
macro_rules! each {
    ($check:ident, $kind:literal: $($family:ident)*) => {
        mod $check {
            $(#[test]
            fn $family() {
                let name = concat!("families/", stringify!($family), "_", $kind);
                if let Some(checkpoint) = crate::support::checkpoint::load(name) {
                    super::$check(&checkpoint);
                }
            })*
        }
    };
}

each!(reward_models, "rm": llama2 mistral qwen2 qwen3 smollm2);
each!(language_models, "lm": llama2 llama3 llama_linear llama_yarn llama_bias mistral qwen2 qwen3 smollm2);
each!(greedy_tokens, "lm": llama2 llama3 llama_linear llama_yarn llama_bias mistral qwen2 qwen3 smollm2);
each!(saved_reward_models, "rm": llama2 mistral qwen2 qwen3 smollm2);
each!(saved_language_models, "lm": llama2 llama3 llama_linear llama_yarn llama_bias mistral qwen2 qwen3 smollm2);

fn reward_models(checkpoint: &Checkpoint) {
    let model = reward_model(&checkpoint.folder);
    let records = preferences(checkpoint);
    assert_close(
        "rewards",
        &rewards(&model, &records),
        &checkpoint.expected("rewards.f64").f64(),
    );
    let batch = batch(&model, &records, pairs(model.config()));
    let forward_and_backward = || {
        model.accumulate(&batch).unwrap();
        f64::from(model.read_metrics().unwrap()[0][0])
    };
    compare_training(checkpoint, model.parameters(), forward_and_backward);
}

fn language_models(checkpoint: &Checkpoint) {
    let policy = policy(&checkpoint.folder, Purpose::Train);
    let batch = texts(&policy, checkpoint);
    let expected = expected_logprobs(checkpoint);
    assert_close("logprobs", &logprobs(&policy, &batch), &expected);

    let mut plan = Plan::new(gpu());
    policy.record_forward(&mut plan).unwrap();
    policy.record_head_backward(&mut plan).unwrap();
    policy.record_trunk_backward(&mut plan).unwrap();
    // The loss is the mean negative log-probability.
    let gradient = TokenGradient {
        dlogprob: -1.0 / batch.targets.len() as f32,
        dentropy: 0.0,
    };
    let gradients = vec![gradient; batch.targets.len()];
    let forward_and_backward = || {
        policy.gradients().write(gpu(), &gradients).unwrap();
        plan.submit();
        let tokens: Vec<TokenLogprob> = policy.logprobs().read(gpu()).unwrap();
        let live = tokens.iter().take(batch.targets.len());
        let sum: f64 = live.map(|token| f64::from(token.logprob)).sum();
        -sum / batch.targets.len() as f64
    };
    compare_training(checkpoint, policy.parameters(), forward_and_backward);
}

/// Gradients at the initial weights, then losses, gradient norms and weights of three updates.
fn compare_training(
    checkpoint: &Checkpoint,
    parameters: &Parameters,
    forward_and_backward: impl Fn() -> f64,
) {
    let number = |name: &str| checkpoint.training[name].as_f64().unwrap();
    let options = AdamW {
        weight_decay: number("weight_decay"),
        max_grad_norm: number("max_grad_norm"),
        ..AdamW::default()
    };
    let mut optimizer = Optimizer::new(gpu(), parameters, options).unwrap();
    for step in 0..3 {
        let loss = forward_and_backward();
        let expected = checkpoint.figure("losses_f64", step);
        let error = (loss - expected).abs();
        assert!(error < BOUND, "loss {step}: {loss} {expected}");
        if step == 0 {
            compare_gradients(checkpoint, parameters);
        }
        optimizer.step(number("lr")).unwrap();
        let norm = f64::from(optimizer.statistics().unwrap().grad_norm);
        let expected = checkpoint.figure("grad_norms_f64", step);
        let error = (norm / expected - 1.0).abs();
        assert!(error < NORM_BOUND, "norm {step}: {norm} {expected}");
    }
    let loss = forward_and_backward();
    let expected = checkpoint.figure("losses_f64", 3);
    let error = (loss - expected).abs();
    assert!(error < BOUND, "last loss: {loss} {expected}");
    compare_weights(checkpoint, parameters);
}

fn compare_gradients(checkpoint: &Checkpoint, parameters: &Parameters) {
    let gradients = parameters.read_gradients(gpu()).unwrap();
    let expected = names(checkpoint, "grad.");
    let found: Vec<&str> = gradients.iter().map(|(spec, _)| &spec.name[..]).collect();
    assert_same_names(&found, &expected);
    let mut worst = 0.0f64;
    for (spec, values) in &gradients {
        let name = format!("grad.{}", spec.name);
        let expected = checkpoint.expected(&name).f64();
        let error = relative_error(values, &expected);
        assert!(error < BOUND, "{name}: {error:e}");
        worst = worst.max(error);
    }
    println!("gradients: {worst:.1e}");
}

fn compare_weights(checkpoint: &Checkpoint, parameters: &Parameters) {
    if names(checkpoint, "after3.").is_empty() {
        return;
    }
    let (mut worst, mut worst_mean) = (0.0f64, 0.0f64);
    for (spec, values) in parameters.read_weights(gpu()).unwrap() {
        let name = format!("after3.{}", spec.name);
        let expected = checkpoint.expected(&name).f64();
        let errors = values.iter().zip(&expected);
        let errors: Vec<f64> = errors.map(|(&a, b)| (f64::from(a) - b).abs()).collect();
        let largest = errors.iter().copied().fold(0.0, f64::max);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(largest < WEIGHT_BOUND, "{name}: {largest:e}");
        assert!(mean < MEAN_WEIGHT_BOUND, "{name}: {mean:e} in the mean");
        worst = worst.max(largest);
        worst_mean = worst_mean.max(mean);
    }
    println!("weights after three updates: {worst:.1e}, in the mean {worst_mean:.1e}");
}

/// What the file expects under a prefix.
fn names<'a>(checkpoint: &'a Checkpoint, prefix: &str) -> Vec<&'a str> {
    let names = checkpoint.expected.keys();
    names.filter_map(|name| name.strip_prefix(prefix)).collect()
}

fn assert_same_names(found: &[&str], expected: &[&str]) {
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(found), sorted(expected));
}

#[track_caller]
fn assert_close(what: &str, actual: &[f32], expected: &[f64]) {
    let error = relative_error(actual, expected);
    println!("{what}: {error:.1e}");
    assert!(error < BOUND, "{what}: {error:e}");
}

fn greedy_tokens(checkpoint: &Checkpoint) {
    let list = |value: &Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let cases = checkpoint.training["greedy"].as_array().unwrap();
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| list(&case["prompt"])).collect();
    let expected: Vec<Vec<u32>> = cases.iter().map(|case| list(&case["tokens"])).collect();
    let policy = policy(&checkpoint.folder, Purpose::Score);
    let capacity = GeneratorCapacity {
        prompt_tokens: 64,
        prompts: 2,
        sequences: 2,
        new_tokens: 16,
    };
    let parameters = policy.parameters();
    let mut generator = Generator::new(gpu(), policy.config(), parameters, capacity).unwrap();
    let options = GenerateOptions {
        sampling: SamplingOptions::greedy(),
        max_new_tokens: 16,
        stop_tokens: vec![],
        seed: 0,
    };
    let completions = generator.generate(&prompts, 1, &options).unwrap();
    let tokens: Vec<Vec<u32>> = completions.into_iter().map(|c| c.tokens).collect();
    assert_eq!(tokens, expected);
}

fn saved_reward_models(checkpoint: &Checkpoint) {
    let first = reward_model(&checkpoint.folder);
    let records = preferences(checkpoint);
    let expected = rewards(&first, &records);
    let folder = tempfile::tempdir().unwrap();
    let weights = first.parameters().read(gpu(), |c| &c.weights).unwrap();
    save_reward_model(first.parameters(), &weights, first.config(), folder.path()).unwrap();
    let second = reward_model(folder.path());
    assert_eq!(second.config(), first.config());
    assert_eq!(rewards(&second, &records), expected);
    check_with_transformers(
        folder.path(),
        &json!({"sequences": checkpoint.sequences(), "rewards": expected}),
    );
}

fn saved_language_models(checkpoint: &Checkpoint) {
    let first = policy(&checkpoint.folder, Purpose::Score);
    let batch = texts(&first, checkpoint);
    let expected = logprobs(&first, &batch);
    let folder = tempfile::tempdir().unwrap();
    let weights = first.parameters().read(gpu(), |c| &c.weights).unwrap();
    save_language_model(first.parameters(), &weights, first.config(), folder.path()).unwrap();
    let second = policy(folder.path(), Purpose::Score);
    assert_eq!(second.config(), first.config());
    assert_eq!(logprobs(&second, &batch), expected);
    let sequences = checkpoint.sequences();
    let mut rest = &expected[..];
    let by_sequence = sequences.iter().map(|sequence| {
        let (logprobs, after) = rest.split_at(sequence.len() - 1);
        rest = after;
        logprobs
    });
    let by_sequence: Vec<&[f32]> = by_sequence.collect();
    check_with_transformers(
        folder.path(),
        &json!({"sequences": sequences, "logprobs": by_sequence}),
    );
}

/// Lets `check_saved.py` load the folder, where `PREFGRAD_PYTHON` names an interpreter that has
/// `transformers`.
fn check_with_transformers(folder: &Path, scores: &Value) {
    let Some(python) = std::env::var_os("PREFGRAD_PYTHON") else {
        println!("not loaded by transformers: PREFGRAD_PYTHON names no interpreter");
        return;
    };
    let path = folder.join("scores.json");
    std::fs::write(&path, scores.to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/check_saved.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(folder).arg(&path).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    println!("by transformers: {out}");
}

fn reward_model(folder: &Path) -> RewardModel {
    let config = ModelConfig::read(folder).unwrap();
    let capacity = capacity_for(512, false);
    let loss = PairwiseLossOptions::default();
    let model = RewardModel::to_train(gpu(), &config, capacity, &loss).unwrap();
    assert!(load_weights(gpu(), model.parameters(), folder).unwrap());
    model
}

fn policy(folder: &Path, purpose: Purpose) -> Policy {
    let config = ModelConfig::read(folder).unwrap();
    let (heads, capacity) = ([Head::Language], capacity_for(512, true));
    let options = PolicyOptions::default();
    let policy = Policy::new(gpu(), &config, &heads, capacity, purpose, options).unwrap();
    assert!(load_weights(gpu(), policy.parameters(), folder).unwrap());
    policy
}

/// Row i is preferred to row i + n/2.
fn preferences(checkpoint: &Checkpoint) -> Vec<TokenRecord> {
    let sequences = checkpoint.sequences();
    let (chosen, rejected) = sequences.split_at(sequences.len() / 2);
    let both = chosen.iter().zip(rejected);
    both.map(|(c, r)| pair(&[], c, r)).collect()
}

/// Of the rows in their order.
fn rewards(model: &RewardModel, records: &[TokenRecord]) -> Vec<f32> {
    let rewards = score_records(model, records).unwrap();
    (0..2)
        .flat_map(|side| rewards.iter().map(move |pair| pair[side]))
        .collect()
}

/// The rows with every token but the first of each a target, uploaded.
fn texts(policy: &Policy, checkpoint: &Checkpoint) -> Batch {
    let record = |sequence| TokenRecord {
        line: 1,
        prompt: vec![],
        answers: vec![sequence],
        preferences: vec![],
    };
    let sequences = checkpoint.sequences().into_iter();
    let records: Vec<TokenRecord> = sequences.map(record).collect();
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::All,
        ..PackOptions::default()
    };
    let mut batches = pack_all(&records, policy.batch().capacity, options).unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

fn logprobs(policy: &Policy, batch: &Batch) -> Vec<f32> {
    let recorded = AnswerLogprobs::new(policy).unwrap();
    recorded.of_targets(policy, batch).unwrap()
}

/// Those of tokens that are not padding, one row after another.
fn expected_logprobs(checkpoint: &Checkpoint) -> Vec<f64> {
    let expected = checkpoint.expected("logprobs.f64");
    let rows = expected.f64();
    let rows = rows.chunks(expected.shape[1]);
    rows.zip(checkpoint.sequences())
        .flat_map(|(row, sequence)| row[..sequence.len() - 1].to_vec())
        .collect()
}
