//! PPO's loss: `shaders/policy/ppo_loss.wgsl`.

use super::metrics::{
    FIGURES, LARGEST_RATIO, Partials, RATIO, STRUCTS, UNREACHED, expect_at_least, log_of_ratio,
    push_metrics,
};
use super::{Experience, KL, KlControl, KlEstimator, TokenGradient, TokenLogprob};
use crate::Result;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, shader, to_u32};

/// Loss, gradients and figures: a thread a target.
pub const LOSS: Shader = shader!("policy.ppo_loss", "policy/ppo_loss.wgsl", Core);

const OP: &str = "policy.ppo_loss";
const THREADS: usize = 64;

/// Options of [`ppo_loss`]; the default is TRL's `PPOConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PpoLossOptions {
    /// ε: the ratio is clipped to `[1 - ε, 1 + ε]`.
    pub clip_range: f32,
    /// How far a value may move from the old one before its loss is clipped; `None`: any way.
    pub clip_range_value: Option<f32>,
    /// Factor of the value loss.
    pub vf_coef: f32,
    /// Factor of the entropy bonus.
    pub entropy_coef: f32,
    /// The estimate of the KL divergence from the reference that is added to the loss, times
    /// [`KlControl::kl_coef`]; `None`: it is not (but may be part of the rewards).
    pub kl_in_loss: Option<KlEstimator>,
    /// Factor of every token's policy loss; with counts, their `target_scale` takes its place.
    pub target_scale: f32,
    /// Factor of every target's value loss; with counts, their `pair_scale` takes its place (a
    /// batch of PPO has no pairs).
    pub value_scale: f32,
}

impl Default for PpoLossOptions {
    fn default() -> Self {
        Self {
            clip_range: 0.2,
            clip_range_value: Some(0.2),
            vf_coef: 0.1,
            entropy_coef: 0.0,
            kl_in_loss: None,
            target_scale: 1.0,
            value_scale: 1.0,
        }
    }
}

impl PpoLossOptions {
    fn check(&self) -> Result<()> {
        expect_at_least(OP, "clip_range", self.clip_range, 0.0)?;
        if let Some(range) = self.clip_range_value {
            expect_at_least(OP, "clip_range_value", range, 0.0)?;
        }
        expect_at_least(OP, "vf_coef", self.vf_coef, 0.0)?;
        expect_at_least(OP, "entropy_coef", self.entropy_coef, f32::MIN)?;
        expect_at_least(OP, "target_scale", self.target_scale, 0.0)?;
        expect_at_least(OP, "value_scale", self.value_scale, 0.0)
    }
}

/// The tensors of [`ppo_loss`].
#[derive(Debug, Clone, Copy)]
pub struct PpoLossIo<'a> {
    /// (N), of [`TokenLogprob`]: what the policy says now.
    pub logprobs: &'a Tensor,
    /// (N), of [`Experience`]. Every live target must be an answer's, as
    /// [`Targets::Answers`](crate::data::Targets::Answers) lists them: all of them have a value
    /// loss.
    pub experience: &'a Tensor,
    /// (N): what the value model says now.
    pub values: &'a Tensor,
    /// (N), of [`TokenGradient`], written.
    pub gradients: &'a Tensor,
    /// (N), written: the gradient of each value.
    pub dvalues: &'a Tensor,
    /// Scratch: 16 values for every 64 targets.
    pub partials: &'a Tensor,
    /// (slots, [`POLICY_METRICS`](super::metrics::POLICY_METRICS)): one row is written, that of
    /// the counts' `slot` (row 0 without), read as [`PolicyMetrics`](super::metrics::PolicyMetrics).
    pub metrics: &'a Tensor,
    /// (1), of [`KlControl`]; not used without `kl_in_loss`.
    pub kl_control: &'a Tensor,
    /// The batch's counts: how many targets are live, scales and slot. Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct PpoLossParams {
        targets: u32,
        targets_count: u32,
        kl_estimator: u32,
        kl_factor: f32,
        ratio_low: f32,
        ratio_high: f32,
        log_low: f32,
        log_high: f32,
        value_range: f32,
        vf_coef: f32,
        entropy_coef: f32,
        target_scale: f32,
        value_scale: f32,
    }
}

/// Appends PPO's loss with its gradients and figures, in two dispatches.
///
/// With `l = logprob - old logprob`, `r = exp(l)` and advantage `A`:
/// `loss = target_scale Σ weight (-min(r A, clamp(r, 1 - ε, 1 + ε) A) + kl_coef kl - entropy_coef H) +
/// value_scale vf_coef Σ max((v - R)², (clamp(v, v_old ± ε_v) - R)²) / 2`
/// (Schulman et al. 2017, arXiv 1707.06347, equations 7 and 9; value clipping as in OpenAI
/// baselines and TRL). A target of weight 0 has no policy loss, but a value loss.
///
/// `l` is compared with `ln(1 ± ε)` before any exponential. Where both terms of a minimum are
/// equal, the gradient is that of the unclipped one, as it is in PyTorch at a ratio of exactly 1.
/// Exponents are held at 30 from above, with the derivative they have there, and counted;
/// log-probabilities, values and advantages are held within ±1e15. No finite input gives a NaN,
/// as long as weights, scales and coefficients stay within 1e6.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors or options that do not fit, and what
/// [`Plan::push`] refuses.
pub fn ppo_loss(plan: &mut Plan, io: &PpoLossIo<'_>, options: &PpoLossOptions) -> Result<()> {
    let n = io.logprobs.len();
    expect_shape::<TokenLogprob>(OP, "logprobs", io.logprobs, &[n])?;
    expect_shape::<Experience>(OP, "experience", io.experience, &[n])?;
    expect_shape::<f32>(OP, "values", io.values, &[n])?;
    expect_shape::<TokenGradient>(OP, "gradients", io.gradients, &[n])?;
    expect_shape::<f32>(OP, "dvalues", io.dvalues, &[n])?;
    expect_shape::<KlControl>(OP, "kl_control", io.kl_control, &[1])?;
    options.check()?;
    let partials = Partials {
        tensor: io.partials,
        items: n,
        field: Count::Targets,
        share: THREADS,
        smallest: LARGEST_RATIO,
    };
    partials.check(OP, io.metrics)?;
    let params = params(to_u32(OP, n)?, options);
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.logprobs),
        Binding::read(3, io.experience),
        Binding::read(4, io.values),
        Binding::write(5, io.gradients),
        Binding::write(6, io.dvalues),
        Binding::write(7, io.partials),
        Binding::uniform(8, io.kl_control),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &LOSS,
        variant: Variant {
            entry: "ppo_loss",
            libs: &[DISPATCH, live, NUMERICS, KL, RATIO, STRUCTS, FIGURES],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: n.div_ceil(THREADS) as u64,
        cost: Cost {
            flops: 120 * n as u64,
            bytes: 64 * n as u64,
        },
    })?;
    push_metrics(plan, OP, &partials, io.metrics, io.counts)
}

fn params(targets: u32, options: &PpoLossOptions) -> PpoLossParams {
    let clip_range = f64::from(options.clip_range);
    PpoLossParams {
        targets,
        targets_count: Count::Targets as u32,
        kl_estimator: options.kl_in_loss.unwrap_or_default() as u32,
        kl_factor: f32::from(u8::from(options.kl_in_loss.is_some())),
        ratio_low: (1.0 - clip_range) as f32,
        ratio_high: (1.0 + clip_range) as f32,
        log_low: log_of_ratio(1.0 - clip_range),
        log_high: log_of_ratio(1.0 + clip_range),
        value_range: options.clip_range_value.unwrap_or(UNREACHED),
        vf_coef: options.vf_coef,
        entropy_coef: options.entropy_coef,
        target_scale: options.target_scale,
        value_scale: options.value_scale,
    }
}
