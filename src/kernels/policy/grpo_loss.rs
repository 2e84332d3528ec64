//! The losses of GRPO, GSPO and RLOO: `shaders/policy/grpo_loss.wgsl`.

use serde::{Deserialize, Serialize};

use super::lists::expect_lists;
use super::metrics::{
    FIGURES, LARGEST_RATIO, Partials, RATIO, STRUCTS, UNREACHED, expect_at_least, log_of_ratio,
    push_metrics,
};
use super::{Experience, KL, Response, TokenGradient, TokenLogprob};
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::nn::zero_rows::zero_words;
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Loss, gradients and figures: a workgroup a response.
pub const LOSS: Shader = shader!("policy.grpo_loss", "policy/grpo_loss.wgsl", Core);

const OP: &str = "policy.grpo_loss";

/// Whose probability ratio is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u32)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// That of each token (GRPO).
    #[default]
    Token = 0,
    /// The geometric mean over the response's real tokens (GSPO, arXiv 2507.18071).
    SequenceMean = 1,
    /// That of the whole response, the product over its tokens (RLOO, arXiv 2402.14740).
    SequenceSum = 2,
}

/// How the losses of tokens are averaged, under TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLossType {
    /// The mean over responses of the mean over a response's tokens (arXiv 2402.03300); RLOO too.
    Grpo,
    /// The mean over all tokens. Of the whole step, where TRL takes that of each micro-batch.
    Bnpo,
    /// The sum over tokens over responses times the longest length allowed (arXiv 2503.20783).
    DrGrpo,
    /// The mean over all tokens of the step (arXiv 2503.14476).
    #[default]
    Dapo,
}

impl GrpoLossType {
    /// The weight of each real token of a response that has `tokens` of them
    /// ([`Target::weight`](crate::data::batch::Target::weight)).
    pub fn target_weight(self, tokens: usize) -> f32 {
        match self {
            Self::Grpo => 1.0 / tokens.max(1) as f32,
            Self::Bnpo | Self::DrGrpo | Self::Dapo => 1.0,
        }
    }

    /// The factor of all tokens ([`Counts::target_scale`](crate::data::Counts::target_scale)) in
    /// a step of `responses` responses that have `tokens` real tokens together and may have at
    /// most `max_response_len` each.
    pub fn target_scale(self, responses: usize, tokens: usize, max_response_len: usize) -> f32 {
        let normaliser = match self {
            Self::Grpo => responses,
            Self::Bnpo | Self::Dapo => tokens,
            Self::DrGrpo => responses * max_response_len,
        };
        1.0 / normaliser.max(1) as f32
    }
}

/// Options of [`grpo_loss`]; the default is TRL's `GRPOConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GrpoLossOptions {
    /// The ratio is clipped to `[1 - clip_low, 1 + clip_high]`.
    pub clip_low: f32,
    /// See `clip_low`.
    pub clip_high: f32,
    /// A bound on the ratio where the advantage is negative, above `1 + clip_high`; `None`: none.
    pub delta: Option<f32>,
    /// Factor of the KL divergence from the reference.
    pub beta: f32,
    /// Multiply the divergence by the ratio: an estimate under the policy that is trained, where
    /// the tokens come from the one that sampled.
    pub kl_bias_correction: bool,
    /// Whose ratio it is.
    pub level: RatioLevel,
    /// Factor of every token's loss; with counts, their `target_scale` takes its place.
    pub target_scale: f32,
}

impl Default for GrpoLossOptions {
    fn default() -> Self {
        Self {
            clip_low: 0.2,
            clip_high: 0.2,
            delta: None,
            beta: 0.0,
            kl_bias_correction: true,
            level: RatioLevel::Token,
            target_scale: 1.0,
        }
    }
}

impl GrpoLossOptions {
    fn check(&self) -> Result<()> {
        expect_at_least(OP, "clip_low", self.clip_low, 0.0)?;
        expect_at_least(OP, "clip_high", self.clip_high, 0.0)?;
        expect_at_least(OP, "beta", self.beta, 0.0)?;
        expect_at_least(OP, "target_scale", self.target_scale, 0.0)?;
        match self.delta {
            Some(delta) if !(delta > 1.0 + self.clip_high && delta.is_finite()) => {
                let least = 1.0 + self.clip_high;
                let detail =
                    format!("delta is {delta}, expected more than 1 + clip_high = {least}");
                Err(Error::shape(OP, detail))
            }
            _ => Ok(()),
        }
    }
}

/// The tensors of [`grpo_loss`].
#[derive(Debug, Clone, Copy)]
pub struct GrpoLossIo<'a> {
    /// (A), of [`RowList`](crate::data::batch::RowList): each response's part of `answer_rows`.
    pub answer_lists: &'a Tensor,
    /// (N): indices of targets.
    pub answer_rows: &'a Tensor,
    /// (N), of [`TokenLogprob`]: what the policy says now.
    pub logprobs: &'a Tensor,
    /// (N), of [`Experience`].
    pub experience: &'a Tensor,
    /// (A), of [`Response`]: the advantage.
    pub responses: &'a Tensor,
    /// (N), of [`TokenGradient`], written; zero for targets that no response lists.
    pub gradients: &'a Tensor,
    /// Scratch: 16 values a response.
    pub partials: &'a Tensor,
    /// (slots, [`POLICY_METRICS`](super::metrics::POLICY_METRICS)): one row is written, that of
    /// the counts' `slot` (row 0 without), read as [`PolicyMetrics`](super::metrics::PolicyMetrics).
    pub metrics: &'a Tensor,
    /// The batch's counts: how many answers and targets are live, `target_scale` and slot.
    /// Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct GrpoLossParams {
        answers: u32,
        answers_count: u32,
        level: u32,
        bias_correction: u32,
        ratio_low: f32,
        ratio_high: f32,
        delta: f32,
        log_low: f32,
        log_high: f32,
        log_delta: f32,
        beta: f32,
        target_scale: f32,
    }
}

/// Appends the clipped loss of responses that have one advantage each, with its gradients and
/// figures, in three dispatches (the first sets all gradients to zero).
///
/// With `l_t = logprob - old logprob`, the ratio `r = exp(l)` of a token or of its response
/// ([`RatioLevel`]) and the response's advantage `A`:
/// `loss = target_scale Σ weight (-min(min(r, δ) A, clamp(r, 1 - ε_l, 1 + ε_h) A) + beta k)`, where
/// `k = exp(q) - 1 - q` with `q = ref logprob - logprob`, times `r` with the bias correction
/// (Shao et al. 2024, arXiv 2402.03300, equation 3). The kinds of averaging differ only in the
/// weights: [`GrpoLossType`].
///
/// Ties, exponents and bounds are those of [`ppo_loss`](super::ppo_loss::ppo_loss). A token of
/// weight 0 takes no part in anything.
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit, and what [`Plan::push`] refuses.
pub fn grpo_loss(plan: &mut Plan, io: &GrpoLossIo<'_>, options: &GrpoLossOptions) -> Result<()> {
    let (answers, n) = expect_lists(OP, io.answer_lists, io.answer_rows)?;
    expect_shape::<TokenLogprob>(OP, "logprobs", io.logprobs, &[n])?;
    expect_shape::<Experience>(OP, "experience", io.experience, &[n])?;
    expect_shape::<Response>(OP, "responses", io.responses, &[answers])?;
    expect_shape::<TokenGradient>(OP, "gradients", io.gradients, &[n])?;
    options.check()?;
    let partials = Partials {
        tensor: io.partials,
        items: answers,
        field: Count::Answers,
        share: 1,
        smallest: LARGEST_RATIO,
    };
    partials.check(OP, io.metrics)?;
    let params = params(to_u32(OP, answers)?, options);
    zero_words(plan, io.gradients, [n, 2], Count::Targets, io.counts)?;
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.answer_lists),
        Binding::read(3, io.answer_rows),
        Binding::read(4, io.logprobs),
        Binding::read(5, io.experience),
        Binding::read(6, io.responses),
        Binding::write(7, io.partials),
        Binding::write(8, io.gradients),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &LOSS,
        variant: Variant {
            entry: "grpo_loss",
            libs: &[DISPATCH, live, NUMERICS, KL, RATIO, STRUCTS, FIGURES],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: answers as u64,
        cost: Cost {
            flops: 120 * n as u64,
            bytes: 60 * n as u64 + 112 * answers as u64,
        },
    })?;
    push_metrics(plan, OP, &partials, io.metrics, io.counts)
}

fn params(answers: u32, options: &GrpoLossOptions) -> GrpoLossParams {
    let low = 1.0 - f64::from(options.clip_low);
    let high = 1.0 + f64::from(options.clip_high);
    let (delta, log_delta) = match options.delta {
        Some(delta) => (delta, log_of_ratio(delta.into())),
        None => (LARGEST_RATIO, UNREACHED),
    };
    GrpoLossParams {
        answers,
        answers_count: Count::Answers as u32,
        level: options.level as u32,
        bias_correction: options.kl_bias_correction.into(),
        ratio_low: low as f32,
        ratio_high: high as f32,
        delta,
        log_low: log_of_ratio(low),
        log_high: log_of_ratio(high),
        log_delta,
        beta: options.beta,
        target_scale: options.target_scale,
    }
}
