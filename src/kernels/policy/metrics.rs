//! Figures of the policy losses: `shaders/policy/metrics.wgsl`.

use crate::gpu::device_struct;
use crate::gpu::{Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant};
use crate::kernels::{Count, counts_lib, expect_scratch, expect_shape, lib, shader, to_u32};
use crate::{Error, Result};

/// Adds up what the workgroups of a loss left behind.
pub const METRICS: Shader = shader!("policy.metrics", "policy/metrics.wgsl", Core);
/// How a workgroup of a loss adds its figures.
pub(super) const FIGURES: &Lib = lib!("lib.policy_figures", "policy_figures.wgsl");
/// The structs of targets and lists.
pub(super) const STRUCTS: &Lib = lib!("lib.policy_structs", "policy_structs.wgsl");
/// Ratios and divergences.
pub(super) const RATIO: &Lib = lib!("lib.ratio", "ratio.wgsl");

/// Figures in a row of the ring of metrics of a policy loss.
pub const POLICY_METRICS: usize = 16;
/// Log-ratios and other exponents are held at this from above: no ratio exceeds `exp(30)`.
pub const LARGEST_EXPONENT: f32 = 30.0;
/// `exp(`[`LARGEST_EXPONENT`]`)`.
pub const LARGEST_RATIO: f32 = 1.068_647_4e13;

/// A row of metrics of [`ppo_loss`](super::ppo_loss::ppo_loss) or
/// [`grpo_loss`](super::grpo_loss::grpo_loss).
///
/// Sums run over the real tokens of a batch, those whose weight is not 0, and carry no weight or
/// scale unless it is said: divided by `tokens` they are means. Rows of several batches are put
/// together by [`PolicyMetrics::merge`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyMetrics {
    /// The loss that the gradients belong to, with its weights, scales and coefficients.
    pub loss: f64,
    /// `target_scale Σ weight (-surrogate)`, without penalty and bonus.
    pub policy_loss: f64,
    /// `value_scale Σ max((v - R)², (v' - R)²) / 2` over all targets, without `vf_coef`.
    pub value_loss: f64,
    /// `Σ H`, in nats.
    pub entropy: f64,
    /// `Σ -l`, with `l = logprob - old logprob`: the estimate k1 of KL(old ‖ new).
    pub approx_kl_k1: f64,
    /// `Σ l² / 2`, the estimate k2.
    pub approx_kl_k2: f64,
    /// `Σ exp(l) - 1 - l`, the estimate k3.
    pub approx_kl_k3: f64,
    /// `Σ` of the estimate of KL(new ‖ reference) that the loss penalises: of PPO the one of its
    /// options, k1 without one; of GRPO k3, times the ratio with the bias correction.
    pub kl: f64,
    /// The smallest ratio, `exp(30)` without tokens. Of a sequence-level loss that of a sequence.
    pub ratio_min: f64,
    /// The largest ratio, 0 without tokens.
    pub ratio_max: f64,
    /// Tokens with a negative advantage and a ratio below the interval: no gradient.
    pub clip_low: f64,
    /// Tokens with a positive advantage and a ratio above the interval: no gradient.
    pub clip_high: f64,
    /// Targets whose clipped value had the larger error: no gradient.
    pub value_clip: f64,
    /// Real tokens.
    pub tokens: f64,
    /// Targets with an input or a loss that is infinite or not a number. Where there is one, the
    /// gradients must not be used.
    pub non_finite: f64,
    /// Exponents that were held at [`LARGEST_EXPONENT`].
    pub held: f64,
}

impl Default for PolicyMetrics {
    /// Those of no tokens, with which [`PolicyMetrics::merge`] begins.
    fn default() -> Self {
        let mut row = [0.0; POLICY_METRICS];
        row[8] = LARGEST_RATIO;
        Self::from_row(&row)
    }
}

impl PolicyMetrics {
    /// Names the figures of a row.
    pub fn from_row(row: &[f32; POLICY_METRICS]) -> Self {
        let at = |column: usize| f64::from(row[column]);
        Self {
            loss: at(0),
            policy_loss: at(1),
            value_loss: at(2),
            entropy: at(3),
            approx_kl_k1: at(4),
            approx_kl_k2: at(5),
            approx_kl_k3: at(6),
            kl: at(7),
            ratio_min: at(8),
            ratio_max: at(9),
            clip_low: at(10),
            clip_high: at(11),
            value_clip: at(12),
            tokens: at(13),
            non_finite: at(14),
            held: at(15),
        }
    }

    /// Adds the figures of another batch.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.policy_loss += other.policy_loss;
        self.value_loss += other.value_loss;
        self.entropy += other.entropy;
        self.approx_kl_k1 += other.approx_kl_k1;
        self.approx_kl_k2 += other.approx_kl_k2;
        self.approx_kl_k3 += other.approx_kl_k3;
        self.kl += other.kl;
        self.ratio_min = self.ratio_min.min(other.ratio_min);
        self.ratio_max = self.ratio_max.max(other.ratio_max);
        self.clip_low += other.clip_low;
        self.clip_high += other.clip_high;
        self.value_clip += other.value_clip;
        self.tokens += other.tokens;
        self.non_finite += other.non_finite;
        self.held += other.held;
    }

    /// `Σ exp(l)`: over `tokens` the mean ratio.
    pub fn ratio_sum(&self) -> f64 {
        self.approx_kl_k3 - self.approx_kl_k1 + self.tokens
    }
}

/// A row of metrics of [`dpo_loss`](super::dpo_loss::dpo_loss): sums over the pairs of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DpoMetrics {
    /// `pair_scale Σ weight loss`.
    pub loss: f64,
    /// Pairs with a larger reward for the chosen answer; a tie is not one.
    pub correct: f64,
    /// `Σ` chosen less rejected reward.
    pub margin: f64,
    /// `Σ beta (logprob - reference)` of the chosen answers.
    pub chosen_reward: f64,
    /// The same of the rejected answers.
    pub rejected_reward: f64,
    /// `Σ` log-probability of the chosen answers.
    pub chosen_logprob: f64,
    /// `Σ` log-probability of the rejected answers.
    pub rejected_logprob: f64,
    /// `Σ H` over the tokens of all answers, in nats.
    pub entropy: f64,
    /// Pairs.
    pub pairs: f64,
    /// Tokens of all answers.
    pub tokens: f64,
    /// Log-probabilities, entropies and losses that are infinite or not a number. Where there is
    /// one, the gradients must not be used.
    pub non_finite: f64,
}

impl DpoMetrics {
    /// Names the figures of a row.
    pub fn from_row(row: &[f32; POLICY_METRICS]) -> Self {
        let at = |column: usize| f64::from(row[column]);
        Self {
            loss: at(0),
            correct: at(1),
            margin: at(2),
            chosen_reward: at(3),
            rejected_reward: at(4),
            chosen_logprob: at(5),
            rejected_logprob: at(6),
            entropy: at(7),
            pairs: at(10),
            tokens: at(11),
            non_finite: at(12),
        }
    }

    /// Adds the figures of another batch.
    pub fn merge(&mut self, other: &Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.margin += other.margin;
        self.chosen_reward += other.chosen_reward;
        self.rejected_reward += other.rejected_reward;
        self.chosen_logprob += other.chosen_logprob;
        self.rejected_logprob += other.rejected_logprob;
        self.entropy += other.entropy;
        self.pairs += other.pairs;
        self.tokens += other.tokens;
        self.non_finite += other.non_finite;
    }
}

/// What a loss left in `partials`: a row of [`POLICY_METRICS`] for every `share` of its `items`.
pub(super) struct Partials<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) items: usize,
    pub(super) field: Count,
    pub(super) share: usize,
    /// What the smallest ratio is where there are no items.
    pub(super) smallest: f32,
}

impl Partials<'_> {
    fn rows(&self) -> usize {
        self.items.div_ceil(self.share)
    }

    /// Checks the scratch tensor and the ring; the number of rows of the ring.
    pub(super) fn check(&self, op: &'static str, metrics: &Tensor) -> Result<u32> {
        expect_scratch(op, "partials", self.tensor, self.rows() * POLICY_METRICS)?;
        let slots = metrics.len() / POLICY_METRICS;
        expect_shape::<f32>(op, "metrics", metrics, &[slots, POLICY_METRICS])?;
        if slots == 0 {
            return Err(Error::shape(op, "the ring of metrics has no rows"));
        }
        to_u32(op, slots)
    }
}

device_struct! {
    struct MetricsParams {
        items: u32,
        items_count: u32,
        share: u32,
        slots: u32,
        smallest: f32,
    }
}

/// Appends the sum of the partial figures as one row of metrics: that of the counts' `slot`, the
/// first without.
pub(super) fn push_metrics(
    plan: &mut Plan,
    op: &'static str,
    partials: &Partials<'_>,
    metrics: &Tensor,
    counts: Option<&Tensor>,
) -> Result<()> {
    let params = MetricsParams {
        items: to_u32(op, partials.items)?,
        items_count: partials.field as u32,
        share: to_u32(op, partials.share)?,
        slots: partials.check(op, metrics)?,
        smallest: partials.smallest,
    };
    let (live, counts) = counts_lib(op, counts)?;
    let mut bindings = vec![
        Binding::read(2, partials.tensor),
        Binding::write(3, metrics),
    ];
    bindings.extend(counts);
    let values = (partials.rows() * POLICY_METRICS) as u64;
    plan.push(&Dispatch {
        label: "policy.metrics",
        shader: &METRICS,
        variant: Variant {
            entry: "metrics_row",
            libs: &[live],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: 1,
        cost: Cost {
            flops: values,
            bytes: 4 * values,
        },
    })
}

/// Refuses a number that is not finite or is below `least`.
pub(super) fn expect_at_least(op: &'static str, name: &str, value: f32, least: f32) -> Result<()> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    let detail = format!("{name} is {value}, expected a number of at least {least}");
    Err(Error::shape(op, detail))
}

/// The logarithm of a ratio at which it is clipped; far below every log-ratio where the ratio is
/// not positive. Rounded once, from `f64`.
pub(super) fn log_of_ratio(ratio: f64) -> f32 {
    if ratio > 0.0 {
        ratio.ln() as f32
    } else {
        -UNREACHED
    }
}

/// Beyond every log-ratio that the kernels see.
pub(super) const UNREACHED: f32 = 1e30;
