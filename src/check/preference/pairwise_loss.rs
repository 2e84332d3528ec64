//! Cases of `preference.pairwise_loss` and `preference.pairwise_statistics`.

use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, Pair};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::METRICS;
use crate::kernels::preference::pairwise_loss::{
    PairwiseLossIo, PairwiseLossOptions, PairwiseStatisticsIo, pairwise_loss, pairwise_statistics,
};
use crate::reference::preference::pairwise_loss as reference;

const BOUND: f64 = 1e-5;
const SLOTS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Shape {
    pairs: usize,
    /// Pairs of the batch, where it has counts.
    live: Option<usize>,
    /// Rewards lie in ± this.
    scale: f32,
    label_smoothing: f32,
    centering: f32,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |pairs| Shape {
        pairs,
        live: None,
        scale: 3.0,
        label_smoothing: 0.0,
        centering: 0.0,
    };
    let options = |pairs, live, scale| Shape {
        label_smoothing: 0.1,
        centering: 0.01,
        live,
        scale,
        ..plain(pairs)
    };
    let mut cases: Vec<Case> = [1, 63, 64, 65, 127, 128, 129, 1009]
        .map(|pairs| case(plain(pairs), Purpose::Answer))
        .into();
    for scale in [1e-4, 3.0, 1e3, 1e4] {
        cases.push(case(options(257, None, scale), Purpose::Answer));
        let shape = Shape {
            scale,
            ..plain(257)
        };
        cases.push(case(shape, Purpose::Answer));
    }
    for live in [0, 1, 64, 200] {
        cases.push(case(options(200, Some(live), 3.0), Purpose::Answer));
    }
    // More workgroups than a dimension of a dispatch takes.
    cases.push(case(plain(65_537 * 64), Purpose::Answer));
    cases.push(case(options(1 << 20, None, 3.0), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let name = format!(
        "{} pairs within {:e}, smoothing {}, centring {}, live {:?}",
        shape.pairs, shape.scale, shape.label_smoothing, shape.centering, shape.live
    );
    Case::new("preference.pairwise_loss", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

fn pairs(n: usize) -> Vec<Pair> {
    let (weights, margins) = (values(2, n, 1.0), values(3, n, 0.5));
    weights
        .iter()
        .zip(margins)
        .map(|(weight, margin)| Pair {
            weight: 1.25 + weight,
            margin,
        })
        .collect()
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let n = shape.pairs;
    let rewards = values(1, 2 * n, shape.scale);
    let pairs = pairs(n);
    let live = shape.live.unwrap_or(n);
    let scale = 0.375;
    let counts = Counts {
        pairs: live as u32,
        slot: 4,
        pair_scale: scale,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let counts = shape.live.map(|_| &counts);
    let rewards_tensor = trial.input("rewards", &[2 * n], &rewards)?;
    let pairs_tensor = Tensor::from_slice(gpu, "pairs", &[n], &pairs)?;
    let before = vec![7.0; 2 * n];
    let losses = trial.output("losses", &[n], &before[..n])?;
    let drewards = trial.output("drewards", &[2 * n], &before)?;
    let metrics = trial.output("metrics", &[SLOTS, METRICS], &[-5.0; SLOTS * METRICS])?;
    pairwise_loss(
        &mut trial.plan,
        &PairwiseLossIo {
            rewards: &rewards_tensor,
            pairs: &pairs_tensor,
            losses: &losses,
            drewards: &drewards,
            counts,
        },
        &PairwiseLossOptions {
            label_smoothing: shape.label_smoothing,
            center_rewards_coefficient: shape.centering,
            pair_scale: scale,
        },
    )?;
    let io = PairwiseStatisticsIo {
        rewards: &rewards_tensor,
        losses: &losses,
        metrics: &metrics,
        counts,
    };
    pairwise_statistics(&mut trial.plan, &io, scale)?;

    let expected = expected(&shape, &rewards[..2 * live], &pairs[..live], scale);
    expect_live(&mut trial, &losses, &expected.losses)?;
    expect_live(&mut trial, &drewards, &expected.drewards)?;
    let slot = if shape.live.is_some() { 4 % SLOTS } else { 0 };
    expect_metrics(&mut trial, &metrics, slot, &expected.statistics, live)?;
    Ok(trial)
}

fn expected(shape: &Shape, rewards: &[f32], pairs: &[Pair], scale: f32) -> reference::PairwiseLoss {
    let rewards: Vec<f64> = rewards.iter().map(|&x| x.into()).collect();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|pair| reference::Pair {
            weight: pair.weight.into(),
            margin: pair.margin.into(),
        })
        .collect();
    reference::pairwise_loss(
        &rewards,
        &pairs,
        &reference::PairwiseLossOptions {
            label_smoothing: shape.label_smoothing.into(),
            centering: shape.centering.into(),
            pair_scale: scale.into(),
        },
    )
}

/// The live part holds `expected`, the rest what it held before.
fn expect_live(trial: &mut Trial, tensor: &Tensor, expected: &[f64]) -> Result<()> {
    let live = expected.len();
    let rest = tensor.len() - live;
    let head = tensor.window(tensor.label(), 0, &[live])?;
    trial.expect(&head, expected.to_vec(), BOUND);
    let tail = tensor.window(&format!("{} past the end", tensor.label()), live, &[rest])?;
    trial.expect(&tail, vec![7.0; rest], 0.0);
    Ok(())
}

fn expect_metrics(
    trial: &mut Trial,
    metrics: &Tensor,
    slot: usize,
    expected: &reference::PairwiseStatistics,
    pairs: usize,
) -> Result<()> {
    // Sums of both signs: what rounding leaves is measured against the size of the summands.
    let magnitude = (2.0 * pairs as f64 * expected.reward_square_sum).sqrt();
    let relative = |value: f64| {
        if value == 0.0 {
            BOUND
        } else {
            BOUND * magnitude / value.abs()
        }
    };
    let figures = [
        ("loss", expected.loss, BOUND),
        ("correct", expected.correct, 0.0),
        ("gap", expected.gap_sum, relative(expected.gap_sum)),
        ("reward", expected.reward_sum, relative(expected.reward_sum)),
        ("squared reward", expected.reward_square_sum, BOUND),
        ("pairs", pairs as f64, 0.0),
        ("not finite", 0.0, 0.0),
        ("spare", 0.0, 0.0),
    ];
    for (column, (name, value, bound)) in figures.into_iter().enumerate() {
        let figure = metrics.window(name, slot * METRICS + column, &[1])?;
        trial.expect(&figure, vec![value], bound);
    }
    for other in (0..SLOTS).filter(|&row| row != slot) {
        let row = metrics.window("another row of metrics", other * METRICS, &[METRICS])?;
        trial.expect(&row, vec![-5.0; METRICS], 0.0);
    }
    Ok(())
}
