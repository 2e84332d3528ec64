//! The losses of GRPO, GSPO and RLOO: extremes, levels, what a host sees when an input is not a
//! number, and what is refused.

use prefgrad::check::{answer_lists, values};
use prefgrad::data::batch::Counts;
use prefgrad::kernels::policy::grpo_loss::{
    GrpoLossIo, GrpoLossOptions, GrpoLossType, RatioLevel, grpo_loss,
};
use prefgrad::kernels::policy::metrics::LARGEST_RATIO;
use prefgrad::kernels::policy::{
    Experience, POLICY_METRICS, PolicyMetrics, Response, TokenGradient, TokenLogprob,
};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::policy::{SLOTS, counts, dlogprobs, empty, logprobs, ring, rows, tensor, words};

const LEVELS: [RatioLevel; 3] = [
    RatioLevel::Token,
    RatioLevel::SequenceMean,
    RatioLevel::SequenceSum,
];

pub struct Setup {
    /// Targets in the order of the answers and of their tokens.
    order: Vec<u32>,
    answer_lists: Tensor,
    answer_rows: Tensor,
    logprobs: Tensor,
    experience: Tensor,
    responses: Tensor,
    gradients: Tensor,
    partials: Tensor,
    metrics: Tensor,
}

pub struct Outcome {
    /// In the order of the answers and of their tokens.
    pub dlogprobs: Vec<f32>,
    gradients: Vec<TokenGradient>,
    rows: Vec<[f32; POLICY_METRICS]>,
}

impl Outcome {
    pub fn metrics(&self) -> PolicyMetrics {
        PolicyMetrics::from_row(&self.rows[0])
    }
}

impl Setup {
    /// Responses of these lengths; tokens in the order of the responses.
    pub fn new(
        lengths: &[usize],
        now: &[TokenLogprob],
        experience: &[Experience],
        advantages: &[f32],
    ) -> Self {
        let (lists, order) = answer_lists(lengths);
        let n = order.len();
        let mut now_by_target = vec![TokenLogprob::default(); n];
        let mut by_target = vec![Experience::default(); n];
        for (i, &target) in order.iter().enumerate() {
            now_by_target[target as usize] = now[i];
            by_target[target as usize] = experience[i];
        }
        let response = |&advantage: &f32| Response {
            advantage,
            ..Response::default()
        };
        let responses: Vec<Response> = advantages.iter().map(response).collect();
        Self {
            answer_lists: tensor("answer lists", &lists),
            answer_rows: tensor("answer rows", &order),
            logprobs: tensor("logprobs", &now_by_target),
            experience: tensor("experience", &by_target),
            responses: tensor("responses", &responses),
            gradients: empty::<TokenGradient>("gradients", &[n]),
            partials: empty::<f32>("partials", &[lengths.len() * POLICY_METRICS]),
            metrics: ring(),
            order,
        }
    }

    fn io<'a>(&'a self, counts: Option<&'a Tensor>) -> GrpoLossIo<'a> {
        GrpoLossIo {
            answer_lists: &self.answer_lists,
            answer_rows: &self.answer_rows,
            logprobs: &self.logprobs,
            experience: &self.experience,
            responses: &self.responses,
            gradients: &self.gradients,
            partials: &self.partials,
            metrics: &self.metrics,
            counts,
        }
    }

    pub fn run(&self, options: &GrpoLossOptions, counts: Option<&Tensor>) -> Outcome {
        let mut plan = Plan::new(gpu());
        grpo_loss(&mut plan, &self.io(counts), options).unwrap();
        plan.submit();
        let gradients: Vec<TokenGradient> = self.gradients.read(gpu()).unwrap();
        let by_target = dlogprobs(&gradients);
        Outcome {
            dlogprobs: self.order.iter().map(|&t| by_target[t as usize]).collect(),
            gradients,
            rows: rows(&self.metrics),
        }
    }
}

pub fn token(logprob: f32, ref_logprob: f32, weight: f32) -> Experience {
    Experience {
        logprob,
        ref_logprob,
        weight,
        ..Experience::default()
    }
}

/// Responses with log-ratios around 0.
fn rollout(lengths: &[usize]) -> Setup {
    let n = lengths.iter().sum();
    let [old, moved, reference] = [1, 2, 3].map(|seed| values(seed, n, 0.4));
    let now: Vec<f32> = old.iter().zip(&moved).map(|(a, b)| a + b - 3.0).collect();
    let experience: Vec<Experience> = (0..n)
        .map(|i| token(old[i] - 3.0, now[i] + reference[i], 1.0))
        .collect();
    let advantages = values(4, lengths.len(), 2.0);
    Setup::new(lengths, &logprobs(&now), &experience, &advantages)
}

#[test]
fn for_one_token_all_levels_are_the_same() {
    let setup = rollout(&[1; 70]);
    let run = |level| {
        let options = GrpoLossOptions {
            level,
            beta: 0.1,
            delta: Some(1.5),
            ..GrpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        (out.dlogprobs.clone(), out.metrics())
    };
    let [token, mean, sum] = LEVELS.map(run);
    assert_eq!(mean, sum);
    assert!((mean.1.loss - token.1.loss).abs() < 1e-5 * token.1.loss.abs());
    for (a, b) in token.0.iter().zip(&mean.0) {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "{a} {b}");
    }
    assert!(token.1.clip_low > 0.0 && token.1.clip_high > 0.0);
}

#[test]
fn the_policy_that_sampled_has_a_ratio_of_one() {
    let lengths = [3, 1, 90, 0];
    let now = values(1, 94, 9.0);
    let experience: Vec<Experience> = now.iter().map(|&x| token(x, x, 0.25)).collect();
    let advantages = [1.0, -1.0, 0.5, 2.0];
    let setup = Setup::new(&lengths, &logprobs(&now), &experience, &advantages);
    for level in LEVELS {
        let options = GrpoLossOptions {
            clip_low: 0.0,
            clip_high: 0.0,
            beta: 0.1,
            level,
            ..GrpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        let metrics = out.metrics();
        assert_eq!((metrics.ratio_min, metrics.ratio_max), (1.0, 1.0));
        assert_eq!((metrics.clip_low, metrics.clip_high), (0.0, 0.0));
        assert_eq!((metrics.kl, metrics.approx_kl_k3), (0.0, 0.0));
        // An interval of no width passes the gradient of the ratio all the same.
        assert!(out.dlogprobs.iter().all(|&x| x != 0.0));
        assert_eq!(
            out.gradients.iter().filter(|g| g.dentropy != 0.0).count(),
            0
        );
    }
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
    let mut now = Vec::new();
    let mut experience = Vec::new();
    for logprob in numbers {
        for old in numbers {
            for reference in numbers {
                now.push(logprob);
                experience.push(token(old, reference, [1.0, 0.0, 3.5][now.len() % 3]));
            }
        }
    }
    for len in [1, 20, 250] {
        let lengths = vec![len; now.len() / len];
        let advantages: Vec<f32> = numbers
            .iter()
            .copied()
            .cycle()
            .take(lengths.len())
            .collect();
        let setup = Setup::new(&lengths, &logprobs(&now), &experience, &advantages);
        for level in LEVELS {
            for kl_bias_correction in [false, true] {
                let options = GrpoLossOptions {
                    beta: 0.3,
                    kl_bias_correction,
                    level,
                    ..GrpoLossOptions::default()
                };
                let out = setup.run(&options, None);
                let mut all = out.dlogprobs.iter().chain(&out.rows[0]);
                assert!(
                    all.all(|x| x.is_finite()),
                    "{options:?}: {:?}",
                    out.metrics()
                );
                assert_eq!(out.metrics().non_finite, 0.0);
            }
        }
    }
}

#[test]
fn exponents_are_held_with_the_derivative_they_have_there() {
    let experience = [token(0.0, 0.0, 1.0); 3];
    for level in LEVELS {
        let setup = Setup::new(
            &[2, 1],
            &logprobs(&[35.0, 35.0, -60.0]),
            &experience,
            &[-2.0, 0.0],
        );
        let options = GrpoLossOptions {
            level,
            beta: 0.5,
            kl_bias_correction: false,
            ..GrpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        let share = if level == RatioLevel::SequenceSum {
            2.0
        } else {
            1.0
        };
        for (gradient, expected) in out.dlogprobs.iter().zip([2.0 * share, 2.0 * share, -0.5]) {
            let ratio = gradient / expected / LARGEST_RATIO;
            assert!((ratio - 1.0).abs() < 1e-5, "{level:?}: {gradient}");
        }
        let whole = if level == RatioLevel::Token { 0.0 } else { 1.0 };
        assert_eq!(out.metrics().held, 3.0 + whole, "{level:?}");
    }
}

#[test]
fn scale_sizes_and_slot_come_from_the_counts() {
    let setup = rollout(&[5, 70, 1, 3]);
    for level in LEVELS {
        let options = GrpoLossOptions {
            level,
            ..GrpoLossOptions::default()
        };
        let plain = setup.run(&options, None);
        let batch = counts(Counts {
            answers: 3,
            targets: 79,
            target_scale: 0.125,
            slot: 1 + SLOTS as u32,
            ..Counts::default()
        });
        let options = GrpoLossOptions {
            target_scale: 99.0,
            ..options
        };
        let out = setup.run(&options, Some(&batch));
        for (scaled, plain) in out.dlogprobs[..76].iter().zip(&plain.dlogprobs) {
            assert_eq!(*scaled, 0.125 * plain);
        }
        // The response past the live ones is not learnt from.
        assert_eq!(out.dlogprobs[76..], [0.0; 3]);
        assert_eq!(out.rows[0], plain.rows[0]);
        assert_eq!(PolicyMetrics::from_row(&out.rows[1]).tokens, 76.0);
    }
}

#[test]
fn what_is_not_finite_is_counted_and_stays_in_its_response() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut now = logprobs(&[-1.0; 6]);
        now[1].logprob = bad;
        let mut experience = [token(-1.0, -1.0, 1.0); 6];
        experience[2] = token(bad, bad, 0.0);
        experience[4].ref_logprob = bad;
        for level in LEVELS {
            let setup = Setup::new(&[2, 2, 1, 1], &now, &experience, &[1.0, 1.0, 1.0, bad]);
            let options = GrpoLossOptions {
                level,
                beta: 0.1,
                ..GrpoLossOptions::default()
            };
            let out = setup.run(&options, None);
            let count = out.metrics().non_finite;
            assert!((3.0..=4.0).contains(&count), "{level:?} {bad}: {count}");
            assert!(out.dlogprobs[2..4].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let setup = rollout(&[300, 1, 64, 700]);
    for level in LEVELS {
        let options = GrpoLossOptions {
            level,
            beta: 0.1,
            ..GrpoLossOptions::default()
        };
        let runs = [0; 3].map(|_| {
            let out = setup.run(&options, None);
            (words(&out.gradients), words(&out.rows))
        });
        assert!(runs[0] == runs[1] && runs[1] == runs[2]);
    }
}

#[test]
fn weights_and_scales_make_the_averages() {
    let (responses, tokens, longest) = (4, 40, 16);
    for (kind, weight, scale) in [
        (GrpoLossType::Grpo, 0.1, 0.25),
        (GrpoLossType::Bnpo, 1.0, 0.025),
        (GrpoLossType::Dapo, 1.0, 0.025),
        (GrpoLossType::DrGrpo, 1.0, 1.0 / 64.0),
    ] {
        assert_eq!(kind.target_weight(10), weight);
        assert_eq!(kind.target_scale(responses, tokens, longest), scale);
        assert!(kind.target_weight(0).is_finite() && kind.target_scale(0, 0, 0).is_finite());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = rollout(&[5, 7]);
    let good = GrpoLossOptions::default();
    let mut plan = Plan::new(gpu());
    let short = empty::<f32>("short", &[31]);
    let io = setup.io(None);
    for io in [
        GrpoLossIo {
            responses: &short,
            ..io
        },
        GrpoLossIo {
            answer_lists: &short,
            ..io
        },
        GrpoLossIo {
            answer_rows: &short,
            ..io
        },
        GrpoLossIo {
            gradients: &short,
            ..io
        },
        GrpoLossIo {
            partials: &short,
            ..io
        },
        GrpoLossIo {
            metrics: &short,
            ..io
        },
        GrpoLossIo {
            counts: Some(&short),
            ..io
        },
    ] {
        let error = grpo_loss(&mut plan, &io, &good).unwrap_err();
        assert!(error.to_string().contains("short"), "{error}");
    }
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        for options in [
            GrpoLossOptions {
                clip_low: bad,
                ..good
            },
            GrpoLossOptions {
                clip_high: bad,
                ..good
            },
            GrpoLossOptions {
                delta: Some(bad),
                ..good
            },
            GrpoLossOptions { beta: bad, ..good },
            GrpoLossOptions {
                target_scale: bad,
                ..good
            },
        ] {
            let error = grpo_loss(&mut plan, &io, &options).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    }
    let options = GrpoLossOptions {
        delta: Some(1.2),
        ..good
    };
    let error = grpo_loss(&mut plan, &io, &options).unwrap_err();
    assert!(error.to_string().contains("delta"), "{error}");
    assert!(plan.is_empty());
}
