//! What is sampled, what is remembered and what is learnt from are one and the same policy.

use prefgrad::data::{DataOrder, split_mix};
use prefgrad::model::{Completion, Finish, GenerateOptions, Generator, GeneratorCapacity, Policy};
use prefgrad::train::{RolloutOptions, Warning};

use crate::policy_tools::{ALGORITHMS, Recorder, Trainer, hash, prompts, rollout, trainer};
use crate::tools::gpu;

/// The stream of a run's seed that samples.
const SAMPLING: u64 = 0x5a;

/// Sampling options that each change what is drawn.
fn samplings() -> Vec<(&'static str, RolloutOptions)> {
    let mut all = Vec::new();
    for (name, temperature, top_k, top_p) in [
        ("cool", 0.7, 0, 1.0),
        ("plain", 1.0, 0, 1.0),
        ("hot", 1.5, 0, 1.0),
        ("top-k", 1.0, 4, 1.0),
        ("top-p", 0.7, 0, 0.8),
        ("both", 1.5, 6, 0.9),
    ] {
        let options = RolloutOptions {
            temperature,
            top_k,
            top_p,
            epochs: 2,
            ..rollout()
        };
        all.push((name, options));
    }
    all
}

/// The first ratios are 1 to the bit, and the second epoch's are not.
fn expect_one_first(what: &str, trainer: &mut dyn Trainer, truncates: bool) {
    for step in 1..=2 {
        let (figures, warnings) = trainer.step(&mut Recorder::new(hash)).unwrap();
        assert_eq!(figures.first_ratio, [1.0, 1.0], "{what}, rollout {step}");
        let [low, high] = figures.ratio;
        assert!(low < 0.999 && high > 1.001, "{what}: {low} to {high}");
        let off_policy = warnings.contains(&Warning::OffPolicySampling);
        assert_eq!(off_policy, truncates && step == 1, "{what}: {warnings:?}");
        let first = |w: &Warning| matches!(w, Warning::FirstRatio(_));
        assert!(!warnings.iter().any(first), "{what}: {warnings:?}");
    }
}

#[test]
fn the_first_ratio_is_one_to_the_bit_for_every_sampling_option() {
    for (sampling, options) in samplings() {
        let truncates = options.top_k > 0 || options.top_p < 1.0;
        for algorithm in ["ppo", "grpo"] {
            let what = format!("{algorithm}, {sampling}");
            expect_one_first(&what, &mut *trainer(algorithm, options.clone()), truncates);
        }
    }
}

#[test]
fn the_first_ratio_is_one_however_logits_and_micro_batches_lie() {
    for algorithm in ALGORITHMS {
        for (batch_tokens, logits_bytes, minibatches) in [
            (40, 1, 1),
            (40, 7 * 96, 2),
            (2048, 64 << 20, 1),
            (200, 50 * 96, 5),
        ] {
            let options = RolloutOptions {
                batch_tokens,
                logits_bytes,
                minibatches,
                epochs: 2,
                ..rollout()
            };
            let what = format!("{algorithm}, {batch_tokens} tokens, {logits_bytes} bytes");
            expect_one_first(&what, &mut *trainer(algorithm, options), false);
        }
    }
}

#[test]
fn every_ratio_of_a_first_epoch_with_one_update_is_one() {
    let (step, _) = trainer("ppo", rollout())
        .step(&mut Recorder::new(hash))
        .unwrap();
    assert_eq!((step.updates, step.ratio), (1, [1.0, 1.0]));
    assert_eq!(step.approx_kl, 0.0);
}

#[test]
fn the_generator_and_the_trainer_agree_about_every_token() {
    let mut ends = [0, 0];
    for (sampling, options) in samplings() {
        let mut trainer = trainer("grpo", options.clone());
        let drawn = draw(trainer.policy(), &options);
        let mut reward = Recorder::new(hash);
        trainer.step(&mut reward).unwrap();
        let experience = trainer.buffer().read_experience(gpu()).unwrap();
        assert_eq!(drawn.len(), experience.len());
        let mut tokens = 0;
        for ((drawn, judged), remembered) in drawn.iter().zip(&reward.seen).zip(&experience) {
            assert_eq!(drawn.tokens, judged.answer, "{sampling}");
            assert_eq!(drawn.logprobs.len(), remembered.len());
            for (drawn, remembered) in drawn.logprobs.iter().zip(remembered) {
                let error = (drawn - remembered.logprob).abs();
                assert!(error < 1e-5, "{sampling}: {drawn} {remembered:?}");
                tokens += 1;
            }
        }
        assert!(tokens > 30, "{tokens}");
        for judged in &reward.seen {
            ends[usize::from(judged.finish == Finish::Stop)] += 1;
        }
    }
    assert!(ends[0] > 5 && ends[1] > 5, "{ends:?}");
}

/// What the first rollout of a run draws, by a generator of other sizes.
fn draw(policy: &Policy, options: &RolloutOptions) -> Vec<Completion> {
    let all = prompts();
    let prompts: Vec<Vec<u32>> = DataOrder::new(options.seed, all.len())
        .take(options.prompts)
        .map(|index| all[index].clone())
        .collect();
    let capacity = GeneratorCapacity {
        prompt_tokens: 9,
        prompts: 2,
        sequences: 4,
        new_tokens: 8,
    };
    let (config, parameters) = (policy.config(), policy.parameters());
    let mut generator = Generator::new(gpu(), config, parameters, capacity).unwrap();
    let generate = GenerateOptions {
        sampling: options.sampling(),
        max_new_tokens: options.max_new_tokens,
        stop_tokens: options.stop_tokens.clone(),
        seed: split_mix(options.seed ^ SAMPLING, 1),
    };
    let samples = options.samples;
    generator.generate(&prompts, samples, &generate).unwrap()
}
