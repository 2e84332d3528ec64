//! The losses of DPO and its relatives: `shaders/policy/dpo_loss.wgsl`.

use serde::{Deserialize, Serialize};

use super::lists::expect_lists;
use super::metrics::{FIGURES, Partials, RATIO, STRUCTS, expect_at_least, push_metrics};
pub use super::sequence_logprob::{SequenceLogprobIo, sequence_logprob};
use super::{KL, TokenGradient, TokenLogprob};
use crate::data::batch::{Pair, RowList};
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::nn::zero_rows::zero_words;
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Loss, gradients and figures: a workgroup a pair.
pub const LOSS: Shader = shader!("policy.dpo_loss", "policy/dpo_loss.wgsl", Core);

const OP: &str = "policy.dpo_loss";

/// A loss of the gap `d = a - b`, where `a` and `b` are the summed log-ratios of the chosen and of
/// the rejected answer to the reference, and of `z = beta d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// `-(1 - s) ln σ(z) - s ln σ(-z)` with label smoothing `s` (arXiv 2305.18290, equation 7).
    #[default]
    Sigmoid,
    /// [`DpoLoss::Sigmoid`] with `a` and `b` averaged over their answers' tokens.
    SigmoidNorm,
    /// `(d - 1 / (2 beta))²` (arXiv 2310.12036, equation 17).
    Ipo {
        /// `a` and `b` are averages over their answers' tokens, as TRL has it.
        per_token: bool,
    },
    /// `max(0, 1 - z)`; the derivative at the kink is 0 (arXiv 2305.10425).
    Hinge,
    /// `(-(1 - s) ln σ(z) + s ln σ(-z)) / (1 - 2s)`: unbiased where labels are wrong with
    /// probability `s` (arXiv 2403.00409, equation 11).
    Robust,
}

/// Options of [`dpo_loss`]; the default is TRL's `DPOConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpoLossOptions {
    /// Which loss.
    pub loss: DpoLoss,
    /// How strongly the policy is held near the reference, above 0.
    pub beta: f32,
    /// Probability with which a label is assumed to be wrong, in `[0, 0.5)`; 0 for losses that
    /// know none.
    pub label_smoothing: f32,
    /// Factor of every pair's loss and gradient; with counts, theirs takes its place.
    pub pair_scale: f32,
}

impl Default for DpoLossOptions {
    fn default() -> Self {
        Self {
            loss: DpoLoss::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            pair_scale: 1.0,
        }
    }
}

impl DpoLossOptions {
    fn check(&self) -> Result<()> {
        expect_at_least(OP, "beta", self.beta, f32::MIN_POSITIVE)?;
        expect_at_least(OP, "pair_scale", self.pair_scale, 0.0)?;
        let smoothing = self.label_smoothing;
        if !(0.0..0.5).contains(&smoothing) {
            let detail = format!("label_smoothing is {smoothing}");
            return Err(Error::shape(OP, detail + ", expected 0 to less than 0.5"));
        }
        if smoothing != 0.0 && matches!(self.loss, DpoLoss::Ipo { .. } | DpoLoss::Hinge) {
            let detail = format!("{:?} knows no label_smoothing", self.loss);
            return Err(Error::shape(OP, detail));
        }
        Ok(())
    }
}

/// The tensors of [`dpo_loss`].
#[derive(Debug, Clone, Copy)]
pub struct DpoLossIo<'a> {
    /// (2P), of [`RowList`]: the chosen answer of pair p at 2p, the rejected one at 2p + 1. Each
    /// pair needs targets of its own: a ranking of more than two responses lists a response under
    /// its first pair only.
    pub answer_lists: &'a Tensor,
    /// (N): indices of targets.
    pub answer_rows: &'a Tensor,
    /// (N), of [`TokenLogprob`]: what the policy says now.
    pub logprobs: &'a Tensor,
    /// (2P): the summed log-probability of each answer under the reference, from
    /// [`sequence_logprob`].
    pub ref_logps: &'a Tensor,
    /// (P), of [`Pair`]; margins are not used.
    pub pairs: &'a Tensor,
    /// (N), of [`TokenGradient`], written; zero for targets that no answer lists.
    pub gradients: &'a Tensor,
    /// Scratch: 16 values a pair.
    pub partials: &'a Tensor,
    /// (slots, [`POLICY_METRICS`](super::metrics::POLICY_METRICS)): one row is written, that of
    /// the counts' `slot` (row 0 without), read as [`DpoMetrics`](super::metrics::DpoMetrics).
    pub metrics: &'a Tensor,
    /// The batch's counts: how many pairs and targets are live, `pair_scale` and slot. Without,
    /// all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct DpoLossParams {
        pairs: u32,
        pairs_count: u32,
        form: u32,
        per_token: u32,
        beta: f32,
        right: f32,
        wrong: f32,
        pair_scale: f32,
    }
}

/// Appends a loss over pairs of answers with its gradients and figures, in three dispatches (the
/// first sets all gradients to zero): `loss = pair_scale Σ weight loss(d)`, see [`DpoLoss`].
///
/// Every listed target counts, whatever its weight. Gaps of any size stay finite.
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit, and what [`Plan::push`] refuses.
pub fn dpo_loss(plan: &mut Plan, io: &DpoLossIo<'_>, options: &DpoLossOptions) -> Result<()> {
    let (_, n) = expect_lists(OP, io.answer_lists, io.answer_rows)?;
    let pairs = io.pairs.len();
    expect_shape::<Pair>(OP, "pairs", io.pairs, &[pairs])?;
    expect_shape::<RowList>(OP, "answer_lists", io.answer_lists, &[2 * pairs])?;
    expect_shape::<TokenLogprob>(OP, "logprobs", io.logprobs, &[n])?;
    expect_shape::<f32>(OP, "ref_logps", io.ref_logps, &[2 * pairs])?;
    expect_shape::<TokenGradient>(OP, "gradients", io.gradients, &[n])?;
    options.check()?;
    let partials = Partials {
        tensor: io.partials,
        items: pairs,
        field: Count::Pairs,
        share: 1,
        smallest: 0.0,
    };
    partials.check(OP, io.metrics)?;
    let params = params(to_u32(OP, pairs)?, options);
    zero_words(plan, io.gradients, [n, 2], Count::Targets, io.counts)?;
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.answer_lists),
        Binding::read(3, io.answer_rows),
        Binding::read(4, io.logprobs),
        Binding::read(5, io.ref_logps),
        Binding::read(6, io.pairs),
        Binding::write(7, io.partials),
        Binding::write(8, io.gradients),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &LOSS,
        variant: Variant {
            entry: "dpo_loss",
            libs: &[DISPATCH, live, NUMERICS, KL, RATIO, STRUCTS, FIGURES],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: pairs as u64,
        cost: Cost {
            flops: 6 * n as u64 + 80 * pairs as u64,
            bytes: 32 * n as u64 + 112 * pairs as u64,
        },
    })?;
    push_metrics(plan, OP, &partials, io.metrics, io.counts)
}

fn params(pairs: u32, options: &DpoLossOptions) -> DpoLossParams {
    let smoothing = f64::from(options.label_smoothing);
    let scale = match options.loss {
        DpoLoss::Robust => 1.0 / (1.0 - 2.0 * smoothing),
        _ => 1.0,
    };
    let wrong = match options.loss {
        DpoLoss::Robust => -smoothing * scale,
        _ => smoothing,
    };
    let (form, per_token) = match options.loss {
        DpoLoss::Sigmoid | DpoLoss::Robust => (0, false),
        DpoLoss::SigmoidNorm => (0, true),
        DpoLoss::Hinge => (1, false),
        DpoLoss::Ipo { per_token } => (2, per_token),
    };
    DpoLossParams {
        pairs,
        pairs_count: Count::Pairs as u32,
        form,
        per_token: per_token.into(),
        beta: options.beta,
        right: ((1.0 - smoothing) * scale) as f32,
        wrong: wrong as f32,
        pair_scale: options.pair_scale,
    }
}
