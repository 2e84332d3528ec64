//! PPO's loss: extremes, ties, what a host sees when an input is not a number,
//! and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::Counts;
use prefgrad::kernels::policy::metrics::{LARGEST_EXPONENT, LARGEST_RATIO};
use prefgrad::kernels::policy::ppo_loss::{PpoLossIo, PpoLossOptions, ppo_loss};
use prefgrad::kernels::policy::{
    Experience, KlControl, KlEstimator, POLICY_METRICS, PolicyMetrics, TokenGradient, TokenLogprob,
};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::policy::{SLOTS, counts, dlogprobs, empty, logprobs, ring, rows, tensor, words};

pub struct Setup {
    logprobs: Tensor,
    experience: Tensor,
    values: Tensor,
    gradients: Tensor,
    dvalues: Tensor,
    partials: Tensor,
    metrics: Tensor,
    kl_control: Tensor,
}

pub struct Outcome {
    pub gradients: Vec<TokenGradient>,
    pub dvalues: Vec<f32>,
    rows: Vec<[f32; POLICY_METRICS]>,
}

impl Outcome {
    pub fn metrics(&self) -> PolicyMetrics {
        PolicyMetrics::from_row(&self.rows[0])
    }

    fn words(&self) -> Vec<u32> {
        let parts = [
            words(&self.gradients),
            words(&self.dvalues),
            words(&self.rows),
        ];
        parts.concat()
    }
}

impl Setup {
    pub fn new(
        now: &[TokenLogprob],
        experience: &[Experience],
        values: &[f32],
        kl_coef: f32,
    ) -> Self {
        let n = now.len();
        let control = KlControl {
            kl_coef,
            ..KlControl::default()
        };
        Self {
            logprobs: tensor("logprobs", now),
            experience: tensor("experience", experience),
            values: tensor("values", values),
            gradients: empty::<TokenGradient>("gradients", &[n]),
            dvalues: empty::<f32>("dvalues", &[n]),
            partials: empty::<f32>("partials", &[n.div_ceil(64) * POLICY_METRICS]),
            metrics: ring(),
            kl_control: tensor("kl control", &[control]),
        }
    }

    fn io<'a>(&'a self, counts: Option<&'a Tensor>) -> PpoLossIo<'a> {
        PpoLossIo {
            logprobs: &self.logprobs,
            experience: &self.experience,
            values: &self.values,
            gradients: &self.gradients,
            dvalues: &self.dvalues,
            partials: &self.partials,
            metrics: &self.metrics,
            kl_control: &self.kl_control,
            counts,
        }
    }

    pub fn run(&self, options: &PpoLossOptions, counts: Option<&Tensor>) -> Outcome {
        let mut plan = Plan::new(gpu());
        ppo_loss(&mut plan, &self.io(counts), options).unwrap();
        plan.submit();
        Outcome {
            gradients: self.gradients.read(gpu()).unwrap(),
            dvalues: self.dvalues.read(gpu()).unwrap(),
            rows: rows(&self.metrics),
        }
    }
}

/// Experience with a weight of 1 and an advantage; the rest 0.
pub fn token(logprob: f32, advantage: f32) -> Experience {
    Experience {
        logprob,
        ref_logprob: logprob,
        advantage,
        weight: 1.0,
        ..Experience::default()
    }
}

#[test]
fn exponents_are_held_with_the_derivative_they_have_there() {
    let moved = [30.0, 30.001, 88.0, 1e4, 3e38];
    // A bad token that became likely, and one that the reference likes and the policy does not.
    let experience = [token(0.0, -2.0); 5];
    let setup = Setup::new(&logprobs(&moved), &experience, &[0.0; 5], 0.0);
    let out = setup.run(&PpoLossOptions::default(), None);
    for gradient in &out.gradients {
        let ratio = gradient.dlogprob / 2.0 / LARGEST_RATIO;
        assert!((ratio - 1.0).abs() < 1e-5, "{gradient:?}");
    }
    assert_eq!(out.metrics().held, 4.0);
    let lost: Vec<f32> = moved.iter().map(|x| -x).collect();
    let setup = Setup::new(&logprobs(&lost), &[token(0.0, 0.0); 5], &[0.0; 5], 0.5);
    let options = PpoLossOptions {
        kl_in_loss: Some(KlEstimator::K3),
        ..PpoLossOptions::default()
    };
    let out = setup.run(&options, None);
    for gradient in &out.gradients {
        let ratio = gradient.dlogprob / -0.5 / LARGEST_RATIO;
        assert!((ratio - 1.0).abs() < 1e-5, "{gradient:?}");
    }
    assert_eq!(out.metrics().held, 4.0);
    assert_eq!(LARGEST_EXPONENT.exp(), LARGEST_RATIO);
}

#[test]
fn no_finite_input_gives_what_is_not_finite() {
    let numbers = [
        0.0,
        -1e-38,
        -1e-3,
        -1.0,
        12.0,
        -88.0,
        200.0,
        -1e9,
        f32::MAX,
        f32::MIN,
    ];
    let (mut now, mut experience, mut now_values) = (vec![], vec![], vec![]);
    for logprob in numbers {
        for old in numbers {
            for advantage in numbers {
                let i = now.len();
                let other = |step: usize| numbers[(i / step + i) % numbers.len()];
                now.push(TokenLogprob {
                    logprob,
                    entropy: other(3),
                    ..TokenLogprob::default()
                });
                now_values.push(other(11));
                experience.push(Experience {
                    logprob: old,
                    ref_logprob: other(7),
                    value: other(13),
                    advantage,
                    returns: other(17),
                    weight: [1.0, 0.0, 3.5][i % 3],
                    pad: [0; 2],
                });
            }
        }
    }
    let setup = Setup::new(&now, &experience, &now_values, 0.3);
    for kl_in_loss in [None, Some(KlEstimator::K2), Some(KlEstimator::K3)] {
        for clip_range_value in [None, Some(0.2)] {
            let options = PpoLossOptions {
                clip_range_value,
                entropy_coef: 0.1,
                kl_in_loss,
                ..PpoLossOptions::default()
            };
            let out = setup.run(&options, None);
            let gradients = out.gradients.iter().flat_map(|g| [g.dlogprob, g.dentropy]);
            let mut all = gradients.chain(out.dvalues.clone()).chain(out.rows[0]);
            assert!(all.all(f32::is_finite), "{options:?}: {:?}", out.metrics());
            assert_eq!(out.metrics().non_finite, 0.0);
        }
    }
}

#[test]
fn ties_take_the_gradient_of_the_unclipped_term() {
    // Ratio 1 with an empty interval; a value on the edge of its interval; both errors equal
    // beyond it.
    let experience = [
        token(-1.0, 2.0),
        token(-1.0, -2.0),
        Experience {
            value: 1.0,
            returns: 4.0,
            ..token(-1.0, 0.0)
        },
        Experience {
            value: 1.0,
            returns: 1.75,
            ..token(-1.0, 0.0)
        },
    ];
    let setup = Setup::new(
        &logprobs(&[-1.0; 4]),
        &experience,
        &[0.0, 0.0, 1.5, 2.0],
        0.0,
    );
    let options = PpoLossOptions {
        clip_range: 0.0,
        clip_range_value: Some(0.5),
        vf_coef: 1.0,
        ..PpoLossOptions::default()
    };
    let out = setup.run(&options, None);
    assert_eq!(dlogprobs(&out.gradients), [-2.0, 2.0, 0.0, 0.0]);
    assert_eq!(out.dvalues, [0.0, 0.0, -2.5, 0.25]);
    let metrics = out.metrics();
    assert_eq!((metrics.clip_low, metrics.clip_high), (0.0, 0.0));
    assert_eq!(metrics.value_clip, 0.0);
    assert_eq!((metrics.ratio_min, metrics.ratio_max), (1.0, 1.0));
}

/// Tokens with log-ratios around 0, one of eight of weight 0.
fn rollout(n: usize) -> Setup {
    let old = values(1, n, 1.0);
    let moved = values(2, n, 0.5);
    let now: Vec<f32> = old.iter().zip(&moved).map(|(a, b)| a + b - 3.0).collect();
    let advantages = values(3, n, 1.0);
    let experience: Vec<Experience> = (0..n)
        .map(|i| Experience {
            weight: if i % 8 == 7 { 0.0 } else { 1.0 },
            returns: advantages[i],
            ..token(old[i] - 3.0, advantages[i])
        })
        .collect();
    Setup::new(&logprobs(&now), &experience, &moved, 0.2)
}

#[test]
fn scales_size_and_slot_come_from_the_counts() {
    let setup = rollout(100);
    let plain = setup.run(&PpoLossOptions::default(), None);
    let batch = counts(Counts {
        targets: 90,
        target_scale: 0.125,
        pair_scale: 0.5,
        slot: 1 + SLOTS as u32,
        ..Counts::default()
    });
    setup
        .gradients
        .write(gpu(), &vec![TokenGradient::default(); 100])
        .unwrap();
    setup.dvalues.write(gpu(), &[0.0_f32; 100]).unwrap();
    let options = PpoLossOptions {
        target_scale: 99.0,
        value_scale: 99.0,
        ..PpoLossOptions::default()
    };
    let out = setup.run(&options, Some(&batch));
    for i in 0..90 {
        // A power of two: no rounding.
        assert_eq!(
            out.gradients[i].dlogprob,
            0.125 * plain.gradients[i].dlogprob
        );
        assert_eq!(out.dvalues[i], 0.5 * plain.dvalues[i]);
    }
    assert!(
        out.gradients[90..]
            .iter()
            .all(|g| *g == TokenGradient::default())
    );
    assert!(out.dvalues[90..].iter().all(|&x| x == 0.0));
    assert_eq!(out.rows[0], plain.rows[0]);
    let metrics = PolicyMetrics::from_row(&out.rows[1]);
    assert_eq!(metrics.tokens, 79.0);
    let parts = metrics.policy_loss + 0.1 * metrics.value_loss;
    assert!((metrics.loss - parts).abs() < 1e-6, "{metrics:?}");
}

#[test]
fn what_is_not_finite_is_counted_and_stays_in_its_target() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut experience = [token(-1.0, 1.0); 6];
        experience[1].advantage = bad;
        experience[2].returns = bad;
        experience[3].weight = 0.0;
        experience[3].advantage = bad;
        let setup = Setup::new(
            &logprobs(&[-1.0, -1.0, -1.0, bad, bad, -1.0]),
            &experience,
            &[0.0; 6],
            0.0,
        );
        let out = setup.run(&PpoLossOptions::default(), None);
        assert_eq!(out.metrics().non_finite, 3.0);
        for i in [0, 3, 5] {
            assert!(out.gradients[i].dlogprob.is_finite() && out.dvalues[i].is_finite());
        }
        assert_eq!(out.gradients[3], TokenGradient::default());
    }
}

#[test]
fn rows_of_batches_add_up() {
    let setup = rollout(300);
    let whole = setup.run(&PpoLossOptions::default(), None).metrics();
    let mut sum = PolicyMetrics::default();
    for live in [128_u32, 300] {
        let batch = counts(Counts {
            targets: live,
            target_scale: 1.0,
            pair_scale: 1.0,
            ..Counts::default()
        });
        let out = setup
            .run(&PpoLossOptions::default(), Some(&batch))
            .metrics();
        if live == 300 {
            assert_eq!(out, whole);
        }
        sum.merge(&out);
    }
    assert!(sum.tokens > whole.tokens && sum.loss.abs() > 0.0);
    assert_eq!(
        (sum.ratio_min, sum.ratio_max),
        (whole.ratio_min, whole.ratio_max)
    );
    let none = counts(Counts::default());
    let out = setup.run(&PpoLossOptions::default(), Some(&none)).metrics();
    assert_eq!(out, PolicyMetrics::default());
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let setup = rollout(3000);
    let runs = [0; 3].map(|_| setup.run(&PpoLossOptions::default(), None).words());
    assert!(runs[0] == runs[1] && runs[1] == runs[2]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = rollout(100);
    let good = PpoLossOptions::default();
    let mut plan = Plan::new(gpu());
    let short = empty::<f32>("short", &[31]);
    let io = setup.io(None);
    for io in [
        PpoLossIo {
            values: &short,
            ..io
        },
        PpoLossIo {
            dvalues: &short,
            ..io
        },
        PpoLossIo {
            partials: &short,
            ..io
        },
        PpoLossIo {
            metrics: &short,
            ..io
        },
        PpoLossIo {
            kl_control: &short,
            ..io
        },
        PpoLossIo {
            counts: Some(&short),
            ..io
        },
    ] {
        let error = ppo_loss(&mut plan, &io, &good).unwrap_err();
        assert!(error.to_string().contains("short"), "{error}");
    }
    let io = PpoLossIo {
        experience: &setup.logprobs,
        ..io
    };
    let error = ppo_loss(&mut plan, &io, &good).unwrap_err();
    assert!(error.to_string().contains("Experience"), "{error}");
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        for options in [
            PpoLossOptions {
                clip_range: bad,
                ..good
            },
            PpoLossOptions {
                clip_range_value: Some(bad),
                ..good
            },
            PpoLossOptions {
                vf_coef: bad,
                ..good
            },
            PpoLossOptions {
                target_scale: bad,
                ..good
            },
            PpoLossOptions {
                value_scale: bad,
                ..good
            },
        ] {
            let error = ppo_loss(&mut plan, &setup.io(None), &options).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    }
    let options = PpoLossOptions {
        entropy_coef: f32::NAN,
        ..good
    };
    assert!(ppo_loss(&mut plan, &setup.io(None), &options).is_err());
    assert!(plan.is_empty());
}
