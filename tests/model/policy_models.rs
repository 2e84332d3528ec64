//! Policies and value models: against float64, and through files.

use std::path::Path;

use prefgrad::data::{Batch, PackOptions, Targets, TokenRecord, pack_all};
use prefgrad::kernels::policy::{TokenGradient, TokenLogprob};
use prefgrad::model::{
    Critic, Finish, Head, ModelConfig, Parameters, Policy, PolicyOptions, Purpose, load_weights,
    model_parameters, save_language_model, save_reward_model,
};
use prefgrad::reference::compare::{difference, relative_error};
use prefgrad::reference::policy::token_logprob;
use prefgrad::reference::transformer;
use prefgrad::train::policy_capacity;
use prefgrad::{Plan, submit_together};

use crate::policy_reference::{Model, Said};
use crate::policy_tools::{Judged, config, named, spread};
use crate::tools::gpu;

const BOUND: f64 = 1e-5;

fn policy(config: &ModelConfig, heads: &[Head], options: PolicyOptions) -> Policy {
    let capacity = policy_capacity(64);
    Policy::new(gpu(), config, heads, capacity, Purpose::Train, options).unwrap()
}

fn model(config: &ModelConfig, parameters: &Parameters, temperature: f32) -> Model {
    let weights = named(parameters, |chunk| &chunk.weights);
    Model::new(config, weights, f64::from(temperature))
}

/// Three answers to one prompt and one to another.
fn answers() -> Vec<Judged> {
    let answer = |prompt: &[u32], tokens: &[u32]| Judged {
        prompt: prompt.to_vec(),
        answer: tokens.to_vec(),
        finish: Finish::Stop,
        reward: 0.0,
    };
    vec![
        answer(&[5, 9, 3], &[4, 8, 1]),
        answer(&[5, 9, 3], &[1]),
        answer(&[5, 9, 3], &[4, 20, 20, 6, 7]),
        answer(&[2], &[11, 0, 13, 1]),
    ]
}

/// The answers packed, those of one prompt together.
fn batch() -> Batch {
    let all = answers();
    let record = |answers: &[Judged]| TokenRecord {
        line: 1,
        prompt: answers[0].prompt.clone(),
        answers: answers.iter().map(|a| a.answer.clone()).collect(),
        preferences: vec![],
    };
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::Answers,
        ..PackOptions::default()
    };
    let records = [record(&all[..3]), record(&all[3..])];
    pack_all(&records, policy_capacity(64), options)
        .unwrap()
        .remove(0)
}

/// Values by target in the order of the answers' tokens.
fn by_answer<T: Copy>(batch: &Batch, values: &[T]) -> Vec<T> {
    let rows = batch.answer_lists.rows.iter();
    rows.map(|&target| values[target as usize]).collect()
}

fn logprobs(policy: &Policy) -> Vec<TokenLogprob> {
    let (batch, mut plan) = (batch(), Plan::new(gpu()));
    policy.batch().upload(gpu(), &batch).unwrap();
    policy.record_forward(&mut plan).unwrap();
    plan.submit();
    let values: Vec<TokenLogprob> = policy.logprobs().read(gpu()).unwrap();
    by_answer(&batch, &values)
}

#[test]
fn a_policy_and_its_gradients_equal_the_reference() {
    for tied in [true, false] {
        for (temperature, logits_bytes) in [(1.0, 1 << 20), (0.7, 3 * 96)] {
            let config = config(tied);
            let options = PolicyOptions {
                temperature,
                logits_bytes,
            };
            let policy = policy(&config, &[Head::Language], options);
            spread(policy.parameters(), 2);
            let what = format!("tied {tied}, {logits_bytes} bytes");
            compare_policy(
                &what,
                &policy,
                &model(&config, policy.parameters(), temperature),
            );
        }
    }
}

fn compare_policy(what: &str, policy: &Policy, reference: &Model) {
    let said: Vec<Said> = answers().iter().map(|a| reference.say(a)).collect();
    let actual = logprobs(policy);
    let expected: Vec<_> = said.iter().flat_map(|s| s.logprobs.clone()).collect();
    let of = |f: fn(&TokenLogprob) -> f32| actual.iter().map(f).collect::<Vec<_>>();
    let wanted =
        |f: fn(&token_logprob::TokenLogprob) -> f64| expected.iter().map(f).collect::<Vec<_>>();
    let error = relative_error(&of(|x| x.logprob), &wanted(|x| x.logprob));
    assert!(error < BOUND, "{what}: {error:e}");
    let error = relative_error(&of(|x| x.entropy), &wanted(|x| x.entropy));
    assert!(error < BOUND, "{what}: {error:e}");

    let batch = batch();
    let gradient = |i: usize| TokenGradient {
        dlogprob: (i as f32 * 1.3).sin(),
        dentropy: 0.2 * (i as f32 * 0.7).cos(),
    };
    let gradients: Vec<TokenGradient> = (0..batch.targets.len()).map(gradient).collect();
    policy.gradients().write(gpu(), &gradients).unwrap();
    let mut plan = Plan::new(gpu());
    policy.record_forward(&mut plan).unwrap();
    policy.record_head_backward(&mut plan).unwrap();
    policy.record_trunk_backward(&mut plan).unwrap();
    submit_together(&[&plan]);
    let mut own = by_answer(&batch, &gradients).into_iter();
    let mut sum = transformer::Parameters::new();
    for said in &said {
        let part: Vec<_> = own
            .by_ref()
            .take(said.logprobs.len())
            .map(|g| token_logprob::TokenGradient {
                dlogprob: f64::from(g.dlogprob),
                dentropy: f64::from(g.dentropy),
            })
            .collect();
        reference.back(said, &part, &[], &mut sum);
    }
    for (name, values) in named(policy.parameters(), |chunk| &chunk.gradients) {
        let difference = difference(&values, &sum[&name]);
        assert!(
            difference.error < 2.0 * BOUND,
            "{what}, {name}: {difference}"
        );
    }
}

/// The values of every answer's tokens.
fn values(policy: &Policy, critic: &Critic) -> Vec<f32> {
    let (batch, mut plan) = (batch(), Plan::new(gpu()));
    policy.batch().upload(gpu(), &batch).unwrap();
    policy.record_forward(&mut plan).unwrap();
    critic.record_forward(&mut plan, policy).unwrap();
    plan.submit();
    let values: Vec<f32> = critic.values().read(gpu()).unwrap();
    by_answer(&batch, &values)
}

fn expected_values(reference: &Model) -> Vec<f64> {
    let of = |answer: &Judged| reference.values(&reference.say(answer));
    answers().iter().flat_map(of).collect()
}

#[test]
fn values_on_the_trunk_equal_the_reference() {
    let config = config(true);
    let heads = [Head::Language, Head::Value];
    let policy = policy(&config, &heads, PolicyOptions::default());
    spread(policy.parameters(), 2);
    let critic = Critic::on_trunk(gpu(), &config, policy_capacity(64)).unwrap();
    assert!(critic.parameters().is_none());
    let expected = expected_values(&model(&config, policy.parameters(), 1.0));
    let error = relative_error(&values(&policy, &critic), &expected);
    assert!(error < BOUND, "{error:e}");
}

#[test]
fn a_policy_without_a_value_head_has_no_values_on_its_trunk() {
    let config = config(true);
    let policy = policy(&config, &[Head::Language], PolicyOptions::default());
    let critic = Critic::on_trunk(gpu(), &config, policy_capacity(64)).unwrap();
    let error = critic
        .record_forward(&mut Plan::new(gpu()), &policy)
        .unwrap_err();
    assert!(error.to_string().contains("value_head"), "{error}");
}

#[test]
fn a_value_network_starts_from_a_reward_model() {
    let policy = policy(&config(true), &[Head::Language], PolicyOptions::default());
    spread(policy.parameters(), 2);
    // Of sizes of its own.
    let wide = ModelConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        head_dim: 32 / config(true).num_attention_heads,
        intermediate_size: 128,
        ..config(true)
    };
    let specs = model_parameters(&wide, &[Head::Score]);
    let reward = Parameters::allocate(gpu(), specs, Purpose::Score).unwrap();
    spread(&reward, 9);
    let folder = tempfile::tempdir().unwrap();
    let weights = reward.read(gpu(), |chunk| &chunk.weights).unwrap();
    save_reward_model(&reward, &weights, &wide, folder.path()).unwrap();

    let critic = Critic::network(gpu(), &wide, policy_capacity(64)).unwrap();
    let parameters = critic.parameters().unwrap();
    assert!(load_weights(gpu(), parameters, folder.path()).unwrap());
    let expected = expected_values(&model(&wide, &reward, 1.0));
    let error = relative_error(&values(&policy, &critic), &expected);
    assert!(error < BOUND, "{error:e}");
}

fn save(policy: &Policy, folder: &Path) {
    let parameters = policy.parameters();
    let weights = parameters.read(gpu(), |chunk| &chunk.weights).unwrap();
    save_language_model(parameters, &weights, policy.config(), folder).unwrap();
}

#[test]
fn a_saved_policy_says_the_same() {
    for tied in [true, false] {
        for heads in [&[Head::Language][..], &[Head::Language, Head::Value]] {
            let first = policy(&config(tied), heads, PolicyOptions::default());
            spread(first.parameters(), 2);
            let folder = tempfile::tempdir().unwrap();
            save(&first, folder.path());
            let file = folder.path().join("value_head.safetensors");
            assert_eq!(file.exists(), heads.len() == 2);
            let config = ModelConfig::read(folder.path()).unwrap();
            assert_eq!(config.tie_word_embeddings, tied);
            let second = policy(&config, heads, PolicyOptions::default());
            assert!(load_weights(gpu(), second.parameters(), folder.path()).unwrap());
            assert_eq!(logprobs(&second), logprobs(&first));
            assert_eq!(
                named(second.parameters(), |chunk| &chunk.weights),
                named(first.parameters(), |chunk| &chunk.weights)
            );
        }
    }
}

#[test]
fn a_head_that_files_lack_keeps_its_start_and_one_too_many_is_passed_over() {
    let both = [Head::Language, Head::Value];
    let of = |heads: &[Head]| policy(&config(true), heads, PolicyOptions::default());
    let (plain, valued) = (of(&[Head::Language]), of(&both));
    spread(plain.parameters(), 2);
    let folder = tempfile::tempdir().unwrap();
    save(&plain, folder.path());
    let start = vec![0.5; config(true).hidden_size];
    let name = "value_head.weight";
    valued.parameters().write(gpu(), name, &start).unwrap();
    assert!(!load_weights(gpu(), valued.parameters(), folder.path()).unwrap());
    assert_eq!(logprobs(&valued), logprobs(&plain));
    let weights = named(valued.parameters(), |chunk| &chunk.weights);
    assert!(weights[name].iter().all(|&x| x == 0.5));

    let folder = tempfile::tempdir().unwrap();
    save(&valued, folder.path());
    let third = of(&[Head::Language]);
    assert!(load_weights(gpu(), third.parameters(), folder.path()).unwrap());
    assert_eq!(logprobs(&third), logprobs(&plain));
}
