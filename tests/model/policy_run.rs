//! Runs: what steers and ends them, that they repeat to the bit, and that they learn.

use prefgrad::train::{
    AdamW, GrpoOptions, KlOptions, PpoOptions, RolloutOptions, Sample, ValueModel,
};

use crate::policy_tools::{
    ALGORITHMS, Recorder, STOP, Trainer, bits, grpo, hash, ppo, rollout, share, trainer,
};

fn with_kl(kl: KlOptions) -> RolloutOptions {
    RolloutOptions { kl, ..rollout() }
}

#[test]
fn the_coefficient_follows_the_divergence() {
    // The policy starts a little way from its reference: above one target and below the other.
    for (target, rises) in [(1e-4, true), (1e4, false)] {
        let mut trainer = trainer(
            "ppo",
            with_kl(KlOptions {
                coef: 0.1,
                target: Some(target),
                horizon: 100.0,
                ..KlOptions::default()
            }),
        );
        let mut coefs = Vec::new();
        for _ in 0..3 {
            let (step, _) = trainer.step(&mut Recorder::new(hash)).unwrap();
            coefs.push(step.kl_coef);
        }
        assert_eq!(coefs[0], 0.1);
        // 15 answers of a horizon of 100, a fifth at most.
        let factor = if rises { 1.03 } else { 0.97 };
        for pair in coefs.windows(2) {
            assert!((pair[1] / pair[0] - factor).abs() < 1e-12, "{coefs:?}");
        }
    }
}

#[test]
fn the_divergence_is_charged_at_the_coefficient_of_the_rollout() {
    let returns = |coef| {
        let mut options = PpoOptions {
            rollout: with_kl(KlOptions {
                coef,
                ..KlOptions::default()
            }),
            lambda: 1.0,
            ..PpoOptions::default()
        };
        options.rollout.stop_tokens = vec![];
        let mut trainer = ppo(options);
        trainer.step(&mut Recorder::new(|_| 0.0)).unwrap();
        let gpu = crate::tools::gpu();
        let kl = trainer.buffer().read_responses(gpu).unwrap();
        let experience = trainer.buffer().read_experience(gpu).unwrap();
        (kl, experience)
    };
    for coef in [0.0, 0.25] {
        let (responses, experience) = returns(coef);
        for (response, tokens) in responses.iter().zip(&experience) {
            let expected = -(coef as f32) * response.kl;
            let error = (tokens[0].returns - expected).abs();
            assert!(error < 1e-5, "{response:?} {:?}", tokens[0]);
        }
    }
}

#[test]
fn a_limit_of_divergence_ends_the_run() {
    for algorithm in ALGORITHMS {
        for (limit, over) in [(1e-6, true), (1e6, false)] {
            let mut trainer = trainer(
                algorithm,
                with_kl(KlOptions {
                    limit: Some(limit),
                    ..KlOptions::default()
                }),
            );
            assert!(!trainer.is_over());
            let (step, _) = trainer.step(&mut Recorder::new(hash)).unwrap();
            assert!(step.kl > 1e-6, "{algorithm}: {}", step.kl);
            assert_eq!(trainer.is_over(), over, "{algorithm}");
        }
    }
}

#[test]
fn a_run_is_over_after_its_rollouts() {
    let mut trainer = trainer(
        "rloo",
        RolloutOptions {
            rollouts: 2,
            ..rollout()
        },
    );
    for over in [false, true] {
        let (step, _) = trainer.step(&mut Recorder::new(hash)).unwrap();
        assert_eq!(trainer.is_over(), over, "after rollout {}", step.rollout);
    }
}

#[test]
fn epochs_end_early_once_the_policy_has_moved() {
    for algorithm in ALGORITHMS {
        for (limit, updates) in [(None, 8), (Some(1e-9), 2), (Some(1e9), 8)] {
            let mut trainer = trainer(
                algorithm,
                RolloutOptions {
                    epochs: 4,
                    minibatches: 2,
                    epoch_kl_limit: limit,
                    ..rollout()
                },
            );
            for _ in 0..2 {
                let (step, _) = trainer.step(&mut Recorder::new(hash)).unwrap();
                assert_eq!(step.updates, updates, "{algorithm}, {limit:?}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    for algorithm in ALGORITHMS {
        let run = |seed| {
            let mut trainer = trainer(
                algorithm,
                RolloutOptions {
                    seed,
                    epochs: 2,
                    minibatches: 2,
                    ..rollout()
                },
            );
            let mut seen = Vec::new();
            for _ in 0..2 {
                let mut reward = Recorder::new(hash);
                trainer.step(&mut reward).unwrap();
                seen.extend(reward.seen);
            }
            let mut all = bits(trainer.policy().parameters());
            all.extend(trainer.value_parameters().map(bits).unwrap_or_default());
            (seen, all)
        };
        let first = run(5);
        assert!(first == run(5), "{algorithm}");
        let other = run(6);
        assert_ne!(first.0, other.0, "{algorithm}");
        assert_ne!(first.1, other.1, "{algorithm}");
    }
}

/// Enough answers to learn from.
fn larger() -> RolloutOptions {
    RolloutOptions {
        rollouts: 15,
        prompts: 10,
        samples: 8,
        epochs: 2,
        minibatches: 2,
        learning_rate: 1e-2,
        stop_tokens: vec![STOP],
        optimizer: AdamW {
            weight_decay: 0.0,
            ..AdamW::default()
        },
        kl: KlOptions {
            coef: 0.0,
            ..KlOptions::default()
        },
        batch_tokens: 512,
        ..rollout()
    }
}

#[test]
fn every_algorithm_learns_to_say_what_is_paid_for() {
    let with = |value| -> Box<dyn Trainer> {
        Box::new(ppo(PpoOptions {
            rollout: larger(),
            value,
            ..PpoOptions::default()
        }))
    };
    let trainers: [(&str, Box<dyn Trainer>); 4] = [
        ("ppo", with(ValueModel::Head)),
        ("ppo network", with(ValueModel::Network)),
        (
            "grpo",
            Box::new(grpo(GrpoOptions {
                rollout: larger(),
                ..GrpoOptions::default()
            })),
        ),
        (
            "rloo",
            Box::new(grpo(GrpoOptions {
                rollout: larger(),
                ..GrpoOptions::rloo()
            })),
        ),
    ];
    for (name, mut trainer) in trainers {
        let mut rewards = Vec::new();
        while !trainer.is_over() {
            let (step, _) = trainer.step(&mut Recorder::new(share)).unwrap();
            rewards.push(step.reward_mean);
        }
        assert!(rewards[0] < 0.2, "{name}: {rewards:?}");
        assert!(rewards[14] > 0.5, "{name}: {rewards:?}");
    }
}

#[test]
fn what_is_charged_keeps_the_policy_near_its_reference() {
    let kl_after = |coef| {
        let mut options = larger();
        options.kl.coef = coef;
        let mut trainer = trainer("grpo", options);
        let mut last = 0.0;
        for _ in 0..8 {
            let rule = |s: &Sample<'_>| share(s);
            last = trainer.step(&mut Recorder::new(rule)).unwrap().0.kl;
        }
        last
    };
    let (free, held) = (kl_after(0.0), kl_after(1.0));
    assert!(held < 0.5 * free, "{held} {free}");
}
