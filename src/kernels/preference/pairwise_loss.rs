//! The Bradley-Terry loss and its figures: `shaders/preference/pairwise_loss.wgsl`,
//! `shaders/preference/pairwise_statistics.wgsl`.

use crate::data::batch::Pair;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::metrics::metrics_slots;
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Loss and gradient: a thread a pair.
pub const LOSS: Shader = shader!(
    "preference.pairwise_loss",
    "preference/pairwise_loss.wgsl",
    Core
);
/// Figures over all pairs.
pub const STATISTICS: Shader = shader!(
    "preference.pairwise_statistics",
    "preference/pairwise_statistics.wgsl",
    Core
);

const OP: &str = "preference.pairwise_loss";
const STATISTICS_OP: &str = "preference.pairwise_statistics";

/// Options of [`pairwise_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairwiseLossOptions {
    /// Probability with which a label is assumed to be wrong, in `[0, 0.5)`.
    pub label_smoothing: f32,
    /// Coefficient of `(r_c + r_r)²`, 0 for none.
    pub center_rewards_coefficient: f32,
    /// Factor of every pair's loss and gradient; with counts, theirs takes its place.
    pub pair_scale: f32,
}

impl Default for PairwiseLossOptions {
    fn default() -> Self {
        Self {
            label_smoothing: 0.0,
            center_rewards_coefficient: 0.0,
            pair_scale: 1.0,
        }
    }
}

/// The tensors of [`pairwise_loss`].
#[derive(Debug, Clone, Copy)]
pub struct PairwiseLossIo<'a> {
    /// (2P): the chosen reward of pair p at 2p, the rejected one at 2p + 1.
    pub rewards: &'a Tensor,
    /// (P), of [`Pair`].
    pub pairs: &'a Tensor,
    /// (P), written: each pair's loss with its weight and without `pair_scale`.
    pub losses: &'a Tensor,
    /// (2P), written: the gradient of `pair_scale Σ loss`.
    pub drewards: &'a Tensor,
    /// The batch's counts: how many pairs are live, and `pair_scale`. Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct PairwiseLossParams {
        pairs: u32,
        pairs_count: u32,
        label_smoothing: f32,
        center_rewards_coefficient: f32,
        pair_scale: f32,
    }
}

/// Appends the Bradley-Terry loss of each pair and its gradient, in one dispatch.
///
/// With `d = r_c - r_r - margin` and smoothing `ε`: `loss = weight (-(1-ε) ln σ(d) - ε ln σ(-d) +
/// c (r_c + r_r)²)` (Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, section 3.5;
/// the centring term Eisenstein et al. 2023, arXiv 2312.09244). Gaps of any size stay finite.
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit, and what [`Plan::push`] refuses.
pub fn pairwise_loss(
    plan: &mut Plan,
    io: &PairwiseLossIo<'_>,
    options: &PairwiseLossOptions,
) -> Result<()> {
    let pairs = io.pairs.len();
    expect_shape::<Pair>(OP, "pairs", io.pairs, &[pairs])?;
    expect_shape::<f32>(OP, "rewards", io.rewards, &[2 * pairs])?;
    expect_shape::<f32>(OP, "losses", io.losses, &[pairs])?;
    expect_shape::<f32>(OP, "drewards", io.drewards, &[2 * pairs])?;
    if !(0.0..0.5).contains(&options.label_smoothing) {
        let detail = format!("label_smoothing is {}", options.label_smoothing);
        return Err(Error::shape(OP, detail + ", expected 0 to less than 0.5"));
    }
    let params = PairwiseLossParams {
        pairs: to_u32(OP, pairs)?,
        pairs_count: Count::Pairs as u32,
        label_smoothing: options.label_smoothing,
        center_rewards_coefficient: options.center_rewards_coefficient,
        pair_scale: options.pair_scale,
    };
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.rewards),
        Binding::read(3, io.pairs),
        Binding::write(4, io.losses),
        Binding::write(5, io.drewards),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &LOSS,
        variant: Variant {
            entry: "pairwise_loss",
            libs: &[DISPATCH, live, NUMERICS],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: pairs.div_ceil(64) as u64,
        cost: Cost {
            flops: 40 * pairs as u64,
            bytes: 28 * pairs as u64,
        },
    })
}

/// The tensors of [`pairwise_statistics`].
#[derive(Debug, Clone, Copy)]
pub struct PairwiseStatisticsIo<'a> {
    /// (2P), as in [`PairwiseLossIo`].
    pub rewards: &'a Tensor,
    /// (P), written by [`pairwise_loss`].
    pub losses: &'a Tensor,
    /// (slots, [`METRICS`](crate::kernels::METRICS)): one row is written, that of the counts' `slot` (row 0 without).
    pub metrics: &'a Tensor,
    /// The batch's counts: how many pairs are live, `pair_scale` and `slot`.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct PairwiseStatisticsParams {
        pairs: u32,
        pairs_count: u32,
        slots: u32,
        pair_scale: f32,
    }
}

/// Appends the figures over all pairs as one row of metrics: `pair_scale Σ loss`, the number of
/// pairs with `r_c > r_r` (a tie is not one), `Σ (r_c - r_r)`, `Σ (r_c + r_r)`, `Σ (r_c² + r_r²)`,
/// the number of pairs, how many losses and rewards are not finite, 0.
///
/// `pair_scale` serves where there are no counts. Sums are in `f32` in a fixed order.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn pairwise_statistics(
    plan: &mut Plan,
    io: &PairwiseStatisticsIo<'_>,
    pair_scale: f32,
) -> Result<()> {
    let pairs = io.losses.len();
    expect_shape::<f32>(STATISTICS_OP, "losses", io.losses, &[pairs])?;
    expect_shape::<f32>(STATISTICS_OP, "rewards", io.rewards, &[2 * pairs])?;
    let slots = metrics_slots(STATISTICS_OP, io.metrics)?;
    let params = PairwiseStatisticsParams {
        pairs: to_u32(STATISTICS_OP, pairs)?,
        pairs_count: Count::Pairs as u32,
        slots,
        pair_scale,
    };
    let (live, counts) = counts_lib(STATISTICS_OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.rewards),
        Binding::read(3, io.losses),
        Binding::write(4, io.metrics),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: STATISTICS_OP,
        shader: &STATISTICS,
        variant: Variant {
            entry: "pairwise_statistics",
            libs: &[live, NUMERICS],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: 1,
        cost: Cost {
            flops: 12 * pairs as u64,
            bytes: 12 * pairs as u64,
        },
    })
}
