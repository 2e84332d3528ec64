//! The losses of DPO and its relatives: PyTorch's figures, extremes, what a host sees when an
//! input is not a number, and what is refused.

use prefgrad::check::{answer_lists, values};
use prefgrad::data::batch::{Counts, Pair};
use prefgrad::kernels::policy::dpo_loss::{
    DpoLoss, DpoLossIo, DpoLossOptions, SequenceLogprobIo, dpo_loss, sequence_logprob,
};
use prefgrad::kernels::policy::{DpoMetrics, POLICY_METRICS, TokenGradient, TokenLogprob};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::policy::{
    SLOTS, assert_figure, assert_golden, counts, dlogprobs, empty, logprobs, ring, rows, tensor,
    words,
};
use crate::support::golden::{Case, cases};

const LOSSES: [DpoLoss; 6] = [
    DpoLoss::Sigmoid,
    DpoLoss::SigmoidNorm,
    DpoLoss::Robust,
    DpoLoss::Hinge,
    DpoLoss::Ipo { per_token: true },
    DpoLoss::Ipo { per_token: false },
];

struct Setup {
    /// Targets in the order of the answers and of their tokens.
    order: Vec<u32>,
    answer_lists: Tensor,
    answer_rows: Tensor,
    logprobs: Tensor,
    ref_logps: Tensor,
    pairs: Tensor,
    gradients: Tensor,
    partials: Tensor,
    metrics: Tensor,
}

struct Outcome {
    /// In the order of the answers and of their tokens.
    dlogprobs: Vec<f32>,
    rows: Vec<[f32; POLICY_METRICS]>,
}

impl Outcome {
    fn metrics(&self) -> DpoMetrics {
        DpoMetrics::from_row(&self.rows[0])
    }
}

impl Setup {
    /// Answers of these lengths, chosen and rejected in turn; tokens in the order of the answers.
    fn new(lengths: &[usize], now: &[TokenLogprob], ref_logps: &[f32]) -> Self {
        let (lists, order) = answer_lists(lengths);
        let n = order.len();
        let mut by_target = vec![TokenLogprob::default(); n];
        for (i, &target) in order.iter().enumerate() {
            by_target[target as usize] = now[i];
        }
        let pair = Pair {
            weight: 1.0,
            margin: 0.0,
        };
        let pairs = lengths.len() / 2;
        Self {
            answer_lists: tensor("answer lists", &lists),
            answer_rows: tensor("answer rows", &order),
            logprobs: tensor("logprobs", &by_target),
            ref_logps: tensor("ref logps", ref_logps),
            pairs: tensor("pairs", &vec![pair; pairs]),
            gradients: empty::<TokenGradient>("gradients", &[n]),
            partials: empty::<f32>("partials", &[pairs * POLICY_METRICS]),
            metrics: ring(),
            order,
        }
    }

    fn io<'a>(&'a self, counts: Option<&'a Tensor>) -> DpoLossIo<'a> {
        DpoLossIo {
            answer_lists: &self.answer_lists,
            answer_rows: &self.answer_rows,
            logprobs: &self.logprobs,
            ref_logps: &self.ref_logps,
            pairs: &self.pairs,
            gradients: &self.gradients,
            partials: &self.partials,
            metrics: &self.metrics,
            counts,
        }
    }

    fn run(&self, options: &DpoLossOptions, counts: Option<&Tensor>) -> Outcome {
        let mut plan = Plan::new(gpu());
        dpo_loss(&mut plan, &self.io(counts), options).unwrap();
        plan.submit();
        let gradients: Vec<TokenGradient> = self.gradients.read(gpu()).unwrap();
        let by_target = dlogprobs(&gradients);
        assert!(gradients.iter().all(|gradient| gradient.dentropy == 0.0));
        Outcome {
            dlogprobs: self.order.iter().map(|&t| by_target[t as usize]).collect(),
            rows: rows(&self.metrics),
        }
    }
}

/// The loss in a case's name.
fn loss(case: &Case) -> DpoLoss {
    [
        ("sigmoid_norm", DpoLoss::SigmoidNorm),
        ("robust", DpoLoss::Robust),
        ("hinge", DpoLoss::Hinge),
        ("ipo_avg", DpoLoss::Ipo { per_token: true }),
        ("ipo", DpoLoss::Ipo { per_token: false }),
    ]
    .into_iter()
    .find(|(name, _)| case.name.starts_with(name))
    .map_or(DpoLoss::Sigmoid, |(_, loss)| loss)
}

#[test]
fn equals_pytorch() {
    let all = cases("dpo", "");
    assert_eq!(all.len(), 45);
    for case in all {
        let input = |name: &str| case.input(name).f32();
        let in_turn = |a: &str, b: &str| -> Vec<f32> {
            let pairs = input(a).into_iter().zip(input(b));
            pairs.flat_map(|(a, b)| [a, b]).collect()
        };
        let sums = in_turn("pc", "pr");
        let lengths: Vec<usize> = in_turn("len_c", "len_r")
            .iter()
            .map(|&len| len as usize)
            .collect();
        // Only the sums are known: each answer's first token has it all.
        let mut now = Vec::new();
        for (&len, &sum) in lengths.iter().zip(&sums) {
            now.push(sum);
            now.resize(now.len() + len - 1, 0.0);
        }
        let setup = Setup::new(&lengths, &logprobs(&now), &in_turn("rc", "rr"));
        let pairs = sums.len() / 2;
        let options = DpoLossOptions {
            loss: loss(&case),
            beta: case.number("beta") as f32,
            label_smoothing: case.number("label_smoothing") as f32,
            pair_scale: 1.0 / pairs as f32,
        };
        let out = setup.run(&options, None);
        let mut by_answer = Vec::new();
        let mut rest = out.dlogprobs.as_slice();
        for &len in &lengths {
            let (own, after) = rest.split_at(len);
            assert!(own.iter().all(|x| *x == own[0]), "{}", case.name);
            by_answer.push(own[0]);
            rest = after;
        }
        for (side, name) in ["pc", "pr"].into_iter().enumerate() {
            let own: Vec<f32> = by_answer.iter().skip(side).step_by(2).copied().collect();
            assert_golden(
                &case,
                &format!("grad.{name}"),
                &own,
                &case.gradient(name).f64(),
            );
        }
        check_figures(&case, &out.metrics(), pairs as f64);
    }
}

fn check_figures(case: &Case, metrics: &DpoMetrics, pairs: f64) {
    for (name, value) in [
        ("loss", metrics.loss),
        ("accuracy", metrics.correct / pairs),
        ("margin", metrics.margin / pairs),
    ] {
        assert_figure(case, name, value);
    }
    for (name, value) in [
        ("rewards_chosen", metrics.chosen_reward),
        ("rewards_rejected", metrics.rejected_reward),
    ] {
        let parts = case.output(name).f64();
        let magnitude: f64 = parts.iter().map(|x| x.abs()).sum();
        let error = (value - parts.iter().sum::<f64>()).abs();
        assert!(error <= 1e-5 * magnitude, "{} {name}: {value}", case.name);
    }
    assert_eq!((metrics.pairs, metrics.non_finite), (pairs, 0.0));
}

/// Pairs of answers, and a reference near the policy.
fn pairs(lengths: &[usize]) -> Setup {
    let n = lengths.iter().sum();
    let now: Vec<f32> = values(1, n, 1.0).iter().map(|x| x - 2.0).collect();
    let moved = values(2, lengths.len(), 3.0);
    let reference = |(&len, moved): (&usize, f32)| moved - 2.0 * len as f32;
    let ref_logps: Vec<f32> = lengths.iter().zip(moved).map(reference).collect();
    Setup::new(lengths, &logprobs(&now), &ref_logps)
}

#[test]
fn a_policy_is_at_no_distance_from_itself() {
    let setup = pairs(&[200, 333, 1, 64, 7, 0]);
    let io = SequenceLogprobIo {
        answer_lists: &setup.answer_lists,
        answer_rows: &setup.answer_rows,
        logprobs: &setup.logprobs,
        sequence_logprobs: &setup.ref_logps,
        counts: None,
    };
    let mut plan = Plan::new(gpu());
    sequence_logprob(&mut plan, &io).unwrap();
    plan.submit();
    let out = setup.run(&DpoLossOptions::default(), None);
    let metrics = out.metrics();
    assert_eq!(
        (metrics.margin, metrics.chosen_reward, metrics.correct),
        (0.0, 0.0, 0.0)
    );
    assert!((metrics.loss / 3.0 - std::f64::consts::LN_2).abs() < 1e-6);
    assert_eq!(out.dlogprobs[0], -0.05);
}

#[test]
fn each_pair_keeps_its_digits_whatever_the_gap() {
    let gaps = [
        0.0, 1e-6, 1e-3, 0.5, 5.0, 8.0, 10.0, 30.0, 80.0, 1e3, 1e4, 3e4,
    ];
    let now: Vec<f32> = gaps
        .iter()
        .flat_map(|&gap: &f32| [gap, 0.0, 0.0, gap])
        .collect();
    let setup = Setup::new(&vec![1; now.len()], &logprobs(&now), &vec![0.0; now.len()]);
    for loss in LOSSES {
        // A power of two: the target of IPO's gap and the hinge's kink (at 8) are exact.
        let options = DpoLossOptions {
            loss,
            beta: 0.125,
            ..DpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        let wide = prefgrad::reference::policy::dpo_loss::DpoLossOptions {
            loss,
            beta: f64::from(options.beta),
            label_smoothing: 0.0,
            pair_scale: 1.0,
        };
        for (pair, now) in out.dlogprobs.chunks(2).zip(now.chunks(2)) {
            let d = f64::from(now[0]) - f64::from(now[1]);
            let (_, expected) = prefgrad::reference::policy::dpo_loss::loss_of(d, &wide);
            // Denormals may be flushed: what is below them is compared absolutely.
            let bound = 1e-5 * expected.abs() + 1e-37;
            assert!(
                (f64::from(pair[0]) - expected).abs() <= bound,
                "{loss:?} {d}: {pair:?}"
            );
            assert_eq!(pair[1], -pair[0]);
        }
    }
}

#[test]
fn no_finite_input_gives_what_is_not_finite() {
    let numbers = [0.0, -1e-38, -1.0, 200.0, -1e9, f32::MAX, f32::MIN];
    let mut now = Vec::new();
    let mut ref_logps = Vec::new();
    for a in numbers {
        for b in numbers {
            for c in numbers {
                now.extend([a, b, b, c]);
                ref_logps.extend([c, a]);
            }
        }
    }
    let setup = Setup::new(&vec![2; ref_logps.len()], &logprobs(&now), &ref_logps);
    for loss in LOSSES {
        for beta in [1e-6, 0.1, 10.0] {
            let options = DpoLossOptions {
                loss,
                beta,
                ..DpoLossOptions::default()
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

#[test]
fn scale_sizes_and_slot_come_from_the_counts() {
    let setup = pairs(&[5, 70, 1, 3]);
    let plain = setup.run(&DpoLossOptions::default(), None);
    let batch = counts(Counts {
        answers: 2,
        pairs: 1,
        targets: 79,
        pair_scale: 0.125,
        slot: 1 + SLOTS as u32,
        ..Counts::default()
    });
    let options = DpoLossOptions {
        pair_scale: 99.0,
        ..DpoLossOptions::default()
    };
    let out = setup.run(&options, Some(&batch));
    for (scaled, plain) in out.dlogprobs[..75].iter().zip(&plain.dlogprobs) {
        assert_eq!(*scaled, 0.125 * plain);
    }
    // The pair past the live ones is not learnt from.
    assert_eq!(out.dlogprobs[75..], [0.0; 4]);
    assert_eq!(out.rows[0], plain.rows[0]);
    let metrics = DpoMetrics::from_row(&out.rows[1]);
    assert_eq!((metrics.pairs, metrics.tokens), (1.0, 75.0));
    let mut sum = metrics;
    sum.merge(&plain.metrics());
    assert_eq!((sum.pairs, sum.tokens), (3.0, 154.0));
}

#[test]
fn a_pair_of_weight_0_has_no_gradient() {
    let setup = pairs(&[5, 4, 3, 2]);
    let weights = [0.0, 2.0].map(|weight| Pair {
        weight,
        margin: 5.0,
    });
    let plain = setup.run(&DpoLossOptions::default(), None);
    setup.pairs.write(gpu(), &weights).unwrap();
    let out = setup.run(&DpoLossOptions::default(), None);
    assert!(out.dlogprobs[..9].iter().all(|&x| x == 0.0));
    let twice = out.dlogprobs[9..].iter().zip(&plain.dlogprobs[9..]);
    assert!(twice.into_iter().all(|(&x, &plain)| x == 2.0 * plain));
}

#[test]
fn what_is_not_finite_is_counted_and_stays_in_its_pair() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let now = logprobs(&[-1.0, bad, -1.0, -1.0, -1.0, -1.0]);
        let setup = Setup::new(&[2, 1, 2, 1], &now, &[0.0; 4]);
        let out = setup.run(&DpoLossOptions::default(), None);
        assert!(out.metrics().non_finite >= 1.0);
        assert!(out.dlogprobs[3..].iter().all(|x| x.is_finite()));
        let setup = Setup::new(&[2, 1, 2, 1], &logprobs(&[-1.0; 6]), &[0.0, 0.0, bad, 0.0]);
        let out = setup.run(&DpoLossOptions::default(), None);
        assert!(out.metrics().non_finite >= 1.0);
        assert!(out.dlogprobs[..3].iter().all(|x| x.is_finite()));
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let setup = pairs(&[300, 1, 64, 700]);
    let runs = [0; 3].map(|_| {
        let out = setup.run(&DpoLossOptions::default(), None);
        (words(&out.dlogprobs), words(&out.rows))
    });
    assert!(runs[0] == runs[1] && runs[1] == runs[2]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = pairs(&[5, 7]);
    let good = DpoLossOptions::default();
    let mut plan = Plan::new(gpu());
    let short = empty::<f32>("short", &[15]);
    let io = setup.io(None);
    for io in [
        DpoLossIo {
            answer_lists: &short,
            ..io
        },
        DpoLossIo {
            answer_rows: &short,
            ..io
        },
        DpoLossIo {
            logprobs: &short,
            ..io
        },
        DpoLossIo {
            ref_logps: &short,
            ..io
        },
        DpoLossIo {
            pairs: &short,
            ..io
        },
        DpoLossIo {
            gradients: &short,
            ..io
        },
        DpoLossIo {
            partials: &short,
            ..io
        },
        DpoLossIo {
            metrics: &short,
            ..io
        },
        DpoLossIo {
            counts: Some(&short),
            ..io
        },
    ] {
        let error = dpo_loss(&mut plan, &io, &good).unwrap_err();
        assert!(error.to_string().contains("short"), "{error}");
    }
    for options in [
        DpoLossOptions { beta: 0.0, ..good },
        DpoLossOptions {
            beta: f32::NAN,
            ..good
        },
        DpoLossOptions {
            label_smoothing: 0.5,
            ..good
        },
        DpoLossOptions {
            label_smoothing: -0.1,
            ..good
        },
        DpoLossOptions {
            label_smoothing: f32::NAN,
            ..good
        },
        DpoLossOptions {
            label_smoothing: 0.1,
            loss: DpoLoss::Hinge,
            ..good
        },
        DpoLossOptions {
            pair_scale: f32::INFINITY,
            ..good
        },
    ] {
        let error = dpo_loss(&mut plan, &io, &options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    let io = SequenceLogprobIo {
        answer_lists: &setup.answer_lists,
        answer_rows: &setup.answer_rows,
        logprobs: &setup.logprobs,
        sequence_logprobs: &short,
        counts: None,
    };
    assert!(sequence_logprob(&mut plan, &io).is_err());
    assert!(plan.is_empty());
}
