//! The Bradley-Terry loss: PyTorch's figures, extremes pair by pair, what a host sees when a
//! reward is not a number, and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{Counts, Pair};
use prefgrad::kernels::METRICS;
use prefgrad::kernels::preference::pairwise_loss::{
    PairwiseLossIo, PairwiseLossOptions, PairwiseStatisticsIo, pairwise_loss, pairwise_statistics,
};
use prefgrad::reference::preference::pairwise_loss as reference;
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::cases;
use crate::tools::{assert_values, bits};

const PLAIN: Pair = Pair {
    weight: 1.0,
    margin: 0.0,
};

struct Setup {
    rewards: Tensor,
    pairs: Tensor,
    losses: Tensor,
    drewards: Tensor,
    metrics: Tensor,
}

impl Setup {
    fn new(rewards: &[f32], pairs: &[Pair]) -> Self {
        let n = pairs.len();
        let zeros = |label: &str, shape: &[usize]| Tensor::zeros::<f32>(gpu(), label, shape);
        Self {
            rewards: Tensor::from_slice(gpu(), "rewards", &[2 * n], rewards).unwrap(),
            pairs: Tensor::from_slice(gpu(), "pairs", &[n], pairs).unwrap(),
            losses: zeros("losses", &[n]).unwrap(),
            drewards: zeros("drewards", &[2 * n]).unwrap(),
            metrics: zeros("metrics", &[2, METRICS]).unwrap(),
        }
    }

    fn io<'a>(&'a self, counts: Option<&'a Tensor>) -> PairwiseLossIo<'a> {
        PairwiseLossIo {
            rewards: &self.rewards,
            pairs: &self.pairs,
            losses: &self.losses,
            drewards: &self.drewards,
            counts,
        }
    }

    fn run(&self, options: &PairwiseLossOptions, counts: Option<&Tensor>) {
        let mut plan = Plan::new(gpu());
        pairwise_loss(&mut plan, &self.io(counts), options).unwrap();
        let io = PairwiseStatisticsIo {
            rewards: &self.rewards,
            losses: &self.losses,
            metrics: &self.metrics,
            counts,
        };
        pairwise_statistics(&mut plan, &io, options.pair_scale).unwrap();
        plan.submit();
    }

    fn metrics(&self) -> Vec<f32> {
        self.metrics.read(gpu()).unwrap()
    }
}

#[test]
fn equals_pytorch() {
    for case in cases("bradley_terry", "") {
        let [chosen, rejected, margin] = ["rc", "rr", "margin"].map(|name| case.input(name).f32());
        let n = chosen.len();
        let rewards: Vec<f32> = (0..n).flat_map(|p| [chosen[p], rejected[p]]).collect();
        let pairs: Vec<Pair> = margin
            .iter()
            .map(|&margin| Pair { margin, ..PLAIN })
            .collect();
        let setup = Setup::new(&rewards, &pairs);
        let options = PairwiseLossOptions {
            label_smoothing: case.number("label_smoothing") as f32,
            center_rewards_coefficient: case.number("center_rewards_coefficient") as f32,
            pair_scale: 1.0 / n as f32,
        };
        setup.run(&options, None);
        let metrics = setup.metrics();
        let name = |what: &str| format!("{} {what}", case.name);
        assert_values(&name("loss"), &metrics[..1], &case.output("loss").f64());
        let accuracy = metrics[1] / n as f32;
        assert_values(
            &name("accuracy"),
            &[accuracy],
            &case.output("accuracy").f64(),
        );
        let drewards: Vec<f32> = setup.drewards.read(gpu()).unwrap();
        let side =
            |side: usize| -> Vec<f32> { drewards.iter().skip(side).step_by(2).copied().collect() };
        assert_values(&name("d rc"), &side(0), &case.gradient("rc").f64());
        assert_values(&name("d rr"), &side(1), &case.gradient("rr").f64());
    }
}

#[test]
fn each_pair_keeps_its_digits_whatever_the_gap() {
    let gaps = [
        0.0, 1e-6, 1e-3, 0.5, 1.0, 5.0, 15.0, 30.0, 80.0, 100.0, 1e3, 1e4, 3e4,
    ];
    let rewards: Vec<f32> = gaps
        .iter()
        .flat_map(|&gap: &f32| [gap, 0.0, 0.0, gap, gap / 2.0, -gap / 2.0])
        .collect();
    let pairs = vec![PLAIN; rewards.len() / 2];
    for label_smoothing in [0.0, 0.1] {
        let setup = Setup::new(&rewards, &pairs);
        let options = PairwiseLossOptions {
            label_smoothing,
            ..PairwiseLossOptions::default()
        };
        setup.run(&options, None);
        let wide: Vec<f64> = rewards.iter().map(|&x| x.into()).collect();
        let expected = reference::pairwise_loss(
            &wide,
            &vec![
                reference::Pair {
                    weight: 1.0,
                    margin: 0.0
                };
                pairs.len()
            ],
            &reference::PairwiseLossOptions {
                label_smoothing: label_smoothing.into(),
                centering: 0.0,
                pair_scale: 1.0,
            },
        );
        let losses: Vec<f32> = setup.losses.read(gpu()).unwrap();
        let drewards: Vec<f32> = setup.drewards.read(gpu()).unwrap();
        let all = losses.iter().chain(&drewards);
        let expected = expected.losses.iter().chain(&expected.drewards);
        for (i, (&actual, &expected)) in all.zip(expected).enumerate() {
            // Denormals may be flushed: what is below them is compared absolutely.
            let bound = 1e-5 * expected.abs() + 1e-37;
            let error = (f64::from(actual) - expected).abs();
            assert!(error <= bound, "{i}: {actual:e} instead of {expected:e}");
        }
    }
}

#[test]
fn scale_size_and_slot_come_from_the_counts() {
    let rewards = values(1, 12, 2.0);
    let setup = Setup::new(&rewards, &[PLAIN; 6]);
    let counts = Counts {
        pairs: 4,
        pair_scale: 0.125,
        slot: 3,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu(), "counts", &[1], &[counts]).unwrap();
    let options = PairwiseLossOptions {
        pair_scale: 99.0,
        ..PairwiseLossOptions::default()
    };
    setup.run(&options, Some(&counts));
    let losses: Vec<f32> = setup.losses.read(gpu()).unwrap();
    assert_eq!(losses[4..], [0.0, 0.0]);
    let metrics = setup.metrics();
    assert_eq!(metrics[..METRICS], [0.0; METRICS]);
    let loss = losses[..4].iter().sum::<f32>() * 0.125;
    assert!((metrics[METRICS] - loss).abs() < 1e-6, "{metrics:?}");
    assert_eq!(metrics[METRICS + 5], 4.0);
}

#[test]
fn rewards_that_are_not_finite_are_counted_and_stay_in_their_pair() {
    let rewards = [1.0, 0.0, f32::NAN, 0.0, 0.5, f32::INFINITY, 2.0, 1.0];
    let setup = Setup::new(&rewards, &[PLAIN; 4]);
    setup.run(&PairwiseLossOptions::default(), None);
    // The loss of the second pair, and of the third (infinite), go with their rewards.
    assert_eq!(setup.metrics()[6], 4.0);
    let drewards: Vec<f32> = setup.drewards.read(gpu()).unwrap();
    assert!(
        drewards[..2]
            .iter()
            .chain(&drewards[6..])
            .all(|x| x.is_finite())
    );
    assert!(!drewards[2].is_finite());
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let setup = Setup::new(&values(1, 2000, 3.0), &[PLAIN; 1000]);
    let runs: Vec<_> = (0..3)
        .map(|_| {
            setup.run(&PairwiseLossOptions::default(), None);
            (bits(gpu(), &setup.drewards), bits(gpu(), &setup.metrics))
        })
        .collect();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = Setup::new(&[0.0; 8], &[PLAIN; 4]);
    let odd = Tensor::zeros::<f32>(gpu(), "odd", &[7]).unwrap();
    let mut plan = Plan::new(gpu());
    let options = PairwiseLossOptions::default();
    let io = PairwiseLossIo {
        rewards: &odd,
        ..setup.io(None)
    };
    let error = pairwise_loss(&mut plan, &io, &options).unwrap_err();
    assert!(error.to_string().contains("odd"), "{error}");
    let io = PairwiseLossIo {
        pairs: &setup.losses,
        ..setup.io(None)
    };
    let error = pairwise_loss(&mut plan, &io, &options).unwrap_err();
    assert!(error.to_string().contains("Pair"), "{error}");
    for label_smoothing in [-0.1, 0.5, f32::NAN] {
        let options = PairwiseLossOptions {
            label_smoothing,
            ..options
        };
        let error = pairwise_loss(&mut plan, &setup.io(None), &options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    let error = pairwise_loss(&mut plan, &setup.io(Some(&odd)), &options).unwrap_err();
    assert!(error.to_string().contains("64"), "{error}");
    let io = PairwiseStatisticsIo {
        rewards: &setup.rewards,
        losses: &setup.losses,
        metrics: &odd,
        counts: None,
    };
    assert!(pairwise_statistics(&mut plan, &io, 1.0).is_err());
    assert!(plan.is_empty());
}
