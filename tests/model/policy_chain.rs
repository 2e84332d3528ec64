//! A whole update by PPO, GRPO and RLOO, from sampled answers to the gradient of every parameter,
//! against float64.

use prefgrad::kernels::policy::grpo_loss::GrpoLossType;
use prefgrad::kernels::policy::{Experience, KlEstimator, PolicyMetrics};
use prefgrad::model::Finish;
use prefgrad::reference::compare::difference;
use prefgrad::reference::policy::experience::kl;
use prefgrad::reference::policy::gae::{GaeOptions, gae};
use prefgrad::reference::policy::group_advantage::group_advantage;
use prefgrad::reference::policy::grpo_loss::{GrpoLossOptions, GrpoResponse, GrpoToken, grpo_loss};
use prefgrad::reference::policy::ppo_loss::{PpoLossOptions, PpoTarget, ppo_loss};
use prefgrad::reference::policy::ratio::Interval;
use prefgrad::reference::policy::token_logprob::TokenGradient;
use prefgrad::reference::policy::whiten::whiten;
use prefgrad::reference::transformer::Parameters;
use prefgrad::train::{GrpoOptions, KlPenalty, PolicyStep, PpoOptions, RolloutOptions, ValueModel};

use crate::policy_reference::{Cast, Model, Remembered};
use crate::policy_tools::{
    Judged, Recorder, Trainer, config, grpo, hash, named, ppo, reference_weights, rollout,
};
use crate::tools::gpu;

/// Of the largest gradient of a parameter.
const BOUND: f64 = 2e-5;

/// What the float64 chain gives.
struct Expected {
    /// Advantage and return of each token, answer by answer.
    advantages: Vec<Vec<(f64, f64)>>,
    gradients: Parameters,
    value_gradients: Parameters,
    metrics: PolicyMetrics,
}

/// The score that is learnt from.
fn score(answer: &Judged, options: &RolloutOptions) -> f64 {
    let penalty = match answer.finish {
        Finish::Stop => 0.0,
        Finish::Length => options.missing_eos_penalty,
    };
    f64::from(answer.reward - penalty)
}

fn gae_options(options: &PpoOptions) -> GaeOptions {
    let in_reward = matches!(
        options.kl_penalty,
        KlPenalty::RewardK1 | KlPenalty::RewardK3
    );
    GaeOptions {
        gamma: f64::from(options.gamma),
        lambda: f64::from(options.lambda),
        kl_coef: if in_reward {
            options.rollout.kl.coef
        } else {
            0.0
        },
        kl_estimator: match options.kl_penalty {
            KlPenalty::RewardK3 => KlEstimator::K3,
            _ => KlEstimator::K1,
        },
    }
}

fn expect_ppo(cast: &Cast, answers: &[Judged], options: &PpoOptions) -> Expected {
    let remembered: Vec<Remembered> = answers.iter().map(|a| cast.remember(a, true)).collect();
    let plain: Vec<Vec<(f64, f64)>> = remembered
        .iter()
        .zip(answers)
        .map(|(r, a)| gae(&r.tokens, score(a, &options.rollout), &gae_options(options)))
        .collect();
    let flat: Vec<f64> = plain.iter().flatten().map(|(a, _)| *a).collect();
    let white = match options.whiten_advantages {
        true => whiten(&flat, &vec![true; flat.len()], true, 1e-8),
        false => flat,
    };
    let mut white = white.into_iter();
    let mut targets = Vec::new();
    let mut advantages = Vec::new();
    for (r, plain) in remembered.iter().zip(&plain) {
        let own: Vec<(f64, f64)> = plain
            .iter()
            .map(|(_, returns)| (white.next().unwrap(), *returns))
            .collect();
        for (t, token) in r.tokens.iter().enumerate() {
            targets.push(PpoTarget {
                logprob: r.now.logprobs[t].logprob,
                entropy: r.now.logprobs[t].entropy,
                value: r.values[t],
                old_logprob: token.logprob,
                ref_logprob: token.ref_logprob,
                old_value: token.value,
                advantage: own[t].0,
                returns: own[t].1,
                weight: 1.0,
            });
        }
        advantages.push(own);
    }
    let coef = options.rollout.kl.coef;
    let scale = 1.0 / targets.len() as f64;
    let loss = ppo_loss(
        &targets,
        &PpoLossOptions {
            clip_range: f64::from(options.clip_range),
            clip_range_value: options.clip_range_value.map(f64::from),
            vf_coef: f64::from(options.vf_coef),
            entropy_coef: f64::from(options.entropy_coef),
            kl_in_loss: match options.kl_penalty {
                KlPenalty::LossK2 => Some((KlEstimator::K2, coef)),
                KlPenalty::LossK3 => Some((KlEstimator::K3, coef)),
                _ => None,
            },
            target_scale: scale,
            value_scale: scale,
        },
    );
    let (mut gradients, mut value_gradients) = (Parameters::new(), Parameters::new());
    let mut first = 0;
    for r in &remembered {
        let own = first..first + r.tokens.len();
        first = own.end;
        let tokens: Vec<TokenGradient> = own
            .clone()
            .map(|n| TokenGradient {
                dlogprob: loss.dlogprobs[n],
                dentropy: loss.dentropies[n],
            })
            .collect();
        let dvalues = &loss.dvalues[own];
        match (&cast.critics, &r.value_now) {
            (Some((_, critic)), Some(said)) => {
                cast.now.back(&r.now, &tokens, &[], &mut gradients);
                critic.back(said, &[], dvalues, &mut value_gradients);
            }
            _ => cast.now.back(&r.now, &tokens, dvalues, &mut gradients),
        }
    }
    Expected {
        advantages,
        gradients,
        value_gradients,
        metrics: loss.metrics,
    }
}

fn expect_grpo(cast: &Cast, answers: &[Judged], options: &GrpoOptions) -> Expected {
    let remembered: Vec<Remembered> = answers.iter().map(|a| cast.remember(a, false)).collect();
    let coef = options.rollout.kl.coef;
    let (in_reward, beta) = match options.kl_in_reward {
        true => (coef, 0.0),
        false => (0.0, coef),
    };
    let rewards: Vec<f64> = remembered
        .iter()
        .zip(answers)
        .map(|(r, a)| score(a, &options.rollout) - in_reward * kl(&r.tokens))
        .collect();
    let size = options.rollout.samples;
    let groups: Vec<_> = (0..answers.len() / size)
        .map(|g| g * size..(g + 1) * size)
        .collect();
    let advantages = group_advantage(&rewards, &groups, options.baseline, options.scale, 1e-4);
    let tokens: usize = answers.iter().map(|a| a.answer.len()).sum();
    // By definition of each type, not by the library's own functions.
    let weight = |len: usize| match options.loss_type {
        GrpoLossType::Grpo => 1.0 / (len * answers.len()) as f64,
        GrpoLossType::Bnpo | GrpoLossType::Dapo => 1.0 / tokens as f64,
        GrpoLossType::DrGrpo => 1.0 / (answers.len() * options.rollout.max_new_tokens) as f64,
    };
    let responses: Vec<GrpoResponse> = remembered
        .iter()
        .zip(&advantages)
        .map(|(r, &advantage)| GrpoResponse {
            tokens: (r.tokens.iter().zip(&r.now.logprobs))
                .map(|(token, now)| GrpoToken {
                    logprob: now.logprob,
                    entropy: now.entropy,
                    old_logprob: token.logprob,
                    ref_logprob: token.ref_logprob,
                    weight: weight(r.tokens.len()),
                })
                .collect(),
            advantage,
        })
        .collect();
    let loss = grpo_loss(
        &responses,
        &GrpoLossOptions {
            interval: Interval {
                low: 1.0 - f64::from(options.clip_low),
                high: 1.0 + f64::from(options.clip_high),
                delta: options.delta.map(f64::from),
            },
            beta,
            kl_bias_correction: options.kl_bias_correction,
            level: options.level,
            target_scale: 1.0,
        },
    );
    let mut gradients = Parameters::new();
    for (r, dlogprobs) in remembered.iter().zip(&loss.dlogprobs) {
        let tokens: Vec<TokenGradient> = dlogprobs
            .iter()
            .map(|&dlogprob| TokenGradient {
                dlogprob,
                dentropy: 0.0,
            })
            .collect();
        cast.now.back(&r.now, &tokens, &[], &mut gradients);
    }
    Expected {
        advantages: advantages.iter().map(|&a| vec![(a, 0.0)]).collect(),
        gradients,
        value_gradients: Parameters::new(),
        metrics: loss.metrics,
    }
}

/// A trainer after a rollout, and who took part in it.
struct Outcome<T> {
    trainer: T,
    cast: Cast,
    answers: Vec<Judged>,
    step: PolicyStep,
}

/// Makes one rollout of one or two epochs. The policy of the second epoch is the one that a run of
/// one epoch ends with.
fn run<T: Trainer>(options: &RolloutOptions, make: impl Fn(RolloutOptions) -> T) -> Outcome<T> {
    let with_epochs = |epochs| {
        make(RolloutOptions {
            epochs,
            ..options.clone()
        })
    };
    let temperature = f64::from(options.temperature);
    let model = |p: &_| Model::new(&config(true), named(p, |c| &c.weights), temperature);
    let models = |trainer: &T| {
        let critic = trainer.value_parameters().map(model);
        (model(trainer.policy().parameters()), critic)
    };
    let mut trainer = with_epochs(options.epochs);
    let (old, critic) = models(&trainer);
    let mut first = with_epochs(1);
    if options.epochs == 2 {
        first.step(&mut Recorder::new(hash)).unwrap();
    }
    let (now, critic_now) = models(&first);
    let mut reward = Recorder::new(hash);
    let (step, _) = trainer.step(&mut reward).unwrap();
    let reference = reference_weights(trainer.policy());
    Outcome {
        cast: Cast {
            old,
            now,
            reference: Model::new(&config(true), reference, temperature),
            critics: critic.zip(critic_now),
        },
        trainer,
        answers: reward.seen,
        step,
    }
}

fn compare<T: Trainer>(what: &str, outcome: &Outcome<T>, expected: &Expected) {
    let minibatch = &outcome.trainer.buffer().minibatches()[0];
    assert!(
        minibatch.len() > 2,
        "{what}: {} micro-batches",
        minibatch.len()
    );
    let near = |name: &str, actual: f64, expected: f64| {
        let error = (actual - expected).abs() / expected.abs().max(1e-3);
        assert!(error < 1e-4, "{what}: {name} is {actual}, not {expected}");
    };
    let (step, metrics) = (&outcome.step, &expected.metrics);
    near("tokens", step.generated_tokens as f64, metrics.tokens);
    near(
        "approx_kl",
        step.approx_kl,
        metrics.approx_kl_k3 / metrics.tokens,
    );
    if step.updates == 1 {
        near("loss", step.loss, metrics.loss);
        near("policy loss", step.policy_loss, metrics.policy_loss);
        near("value loss", step.value_loss, metrics.value_loss);
        near("entropy", step.entropy, metrics.entropy / metrics.tokens);
    } else {
        near("ratio", step.ratio[1], metrics.ratio_max.max(1.0));
        let clipped = (metrics.clip_low + metrics.clip_high) / metrics.tokens;
        assert!(clipped > 0.05, "{what}: only {clipped} is clipped");
        near("clip fraction", step.clip_fraction, clipped / 2.0);
    }
    compare_gradients(
        what,
        outcome.trainer.policy().parameters(),
        &expected.gradients,
    );
    if let Some(parameters) = outcome.trainer.value_parameters() {
        compare_gradients(what, parameters, &expected.value_gradients);
    }
}

fn compare_gradients(what: &str, parameters: &prefgrad::model::Parameters, expected: &Parameters) {
    let actual = named(parameters, |chunk| &chunk.m);
    assert_eq!(
        actual.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, values) in &actual {
        let difference = difference(values, &expected[name]);
        assert!(difference.error < BOUND, "{what}: {name}: {difference}");
    }
}

fn compare_experience(what: &str, actual: &[Vec<Experience>], expected: &[Vec<(f64, f64)>]) {
    let flat = |of: fn(&Experience) -> f32| actual.iter().flatten().map(of).collect::<Vec<_>>();
    let (advantages, returns): (Vec<f64>, Vec<f64>) = expected.iter().flatten().copied().unzip();
    for (name, actual, expected) in [
        ("advantage", flat(|e| e.advantage), advantages),
        ("returns", flat(|e| e.returns), returns),
    ] {
        let difference = difference(&actual, &expected);
        assert!(difference.error < 1e-5, "{what}: {name}: {difference}");
    }
}

#[test]
fn ppo_equals_the_reference_from_answers_to_gradients() {
    let plain = PpoOptions {
        rollout: RolloutOptions {
            missing_eos_penalty: 0.3,
            ..rollout()
        },
        vf_coef: 0.5,
        entropy_coef: 0.02,
        gamma: 0.98,
        ..PpoOptions::default()
    };
    let mut cases = vec![("head", plain.clone())];
    for (name, value, kl_penalty, temperature, epochs) in [
        (
            "head, second epoch",
            ValueModel::Head,
            KlPenalty::RewardK1,
            1.0,
            2,
        ),
        ("network", ValueModel::Network, KlPenalty::RewardK3, 1.0, 1),
        (
            "network, second epoch",
            ValueModel::Network,
            KlPenalty::LossK2,
            1.5,
            2,
        ),
        (
            "cool, KL in the loss",
            ValueModel::Head,
            KlPenalty::LossK3,
            0.7,
            1,
        ),
    ] {
        let mut options = plain.clone();
        (options.value, options.kl_penalty) = (value, kl_penalty);
        options.rollout.temperature = temperature;
        options.rollout.epochs = epochs;
        cases.push((name, options));
    }
    cases.push((
        "not whitened, logits recomputed",
        PpoOptions {
            whiten_advantages: false,
            clip_range_value: None,
            rollout: RolloutOptions {
                logits_bytes: 5 * 24 * 4,
                ..plain.rollout.clone()
            },
            ..plain
        },
    ));
    for (what, options) in cases {
        let outcome = run(&options.rollout, |rollout| {
            ppo(PpoOptions {
                rollout,
                ..options.clone()
            })
        });
        let expected = expect_ppo(&outcome.cast, &outcome.answers, &options);
        let experience = outcome.trainer.buffer().read_experience(gpu()).unwrap();
        compare_experience(what, &experience, &expected.advantages);
        compare(what, &outcome, &expected);
    }
}

#[test]
fn grpo_and_rloo_equal_the_reference_from_answers_to_gradients() {
    let plain = GrpoOptions {
        rollout: rollout(),
        ..GrpoOptions::default()
    };
    let of_type = |loss_type| GrpoOptions {
        loss_type,
        ..plain.clone()
    };
    let twice = |options: GrpoOptions| GrpoOptions {
        rollout: RolloutOptions {
            epochs: 2,
            ..rollout()
        },
        ..options
    };
    let rloo = GrpoOptions {
        rollout: rollout(),
        ..GrpoOptions::rloo()
    };
    for (what, options) in [
        ("dapo", plain.clone()),
        ("grpo", of_type(GrpoLossType::Grpo)),
        ("bnpo", of_type(GrpoLossType::Bnpo)),
        ("dr_grpo", of_type(GrpoLossType::DrGrpo)),
        ("grpo, second epoch", twice(of_type(GrpoLossType::Grpo))),
        ("rloo", rloo.clone()),
        ("rloo, second epoch", twice(rloo)),
    ] {
        let outcome = run(&options.rollout, |rollout| {
            grpo(GrpoOptions {
                rollout,
                ..options.clone()
            })
        });
        let expected = expect_grpo(&outcome.cast, &outcome.answers, &options);
        let responses = outcome.trainer.buffer().read_responses(gpu()).unwrap();
        let actual: Vec<f32> = responses.iter().map(|r| r.advantage).collect();
        let wanted: Vec<f64> = expected.advantages.iter().flatten().map(|a| a.0).collect();
        let difference = difference(&actual, &wanted);
        assert!(difference.error < 1e-5, "{what}: {difference}");
        compare(what, &outcome, &expected);
    }
}
