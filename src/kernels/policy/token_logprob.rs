//! What a language model says of tokens that came: `shaders/policy/token_logprob.wgsl` and its form
//! for subgroups.

use super::{TokenGradient, TokenLogprob};
use crate::gpu::{
    Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::nn::language_head::{
    Chunk, LOGITS, LanguageHead, LanguageHeadGradients, LanguageHeadIo, ROW,
};
use crate::kernels::operand::bind_operands;
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, lib, shader, to_u32};
use crate::{Error, Result};

pub use crate::kernels::nn::language_head::HeadWindow;

/// A row of logits a workgroup.
pub const SHADER: Shader = shader!("policy.token_logprob", "policy/token_logprob.wgsl", Core);
/// A row of logits a subgroup.
pub const SUBGROUP: Shader = shader!(
    "policy.token_logprob_subgroup",
    "policy/token_logprob_subgroup.wgsl",
    Subgroups
);

const SHARED: &Lib = lib!("lib.logprob.token_logprob", "logprob/token_logprob.wgsl");
const FORWARD: &str = "policy.token_logprob_forward";
const BACKWARD: &str = "policy.token_logprob_backward";

/// The smallest temperature: quotients of logits by it stay far from overflow.
pub const MIN_TEMPERATURE: f32 = 1e-6;

/// The tensors of [`token_logprob_forward`].
#[derive(Debug, Clone, Copy)]
pub struct TokenLogprobIo<'a> {
    /// (T, C), after the model's last normalisation.
    pub hidden: &'a Tensor,
    /// The head, in windows that follow one another from token 0 on; V rows together.
    pub head_windows: &'a [HeadWindow<'a>],
    /// (N), of [`Target`](crate::data::batch::Target), sorted by row; every token under V.
    pub targets: &'a Tensor,
    /// (chunk, C), scratch; its rows say how many targets are worked on at a time.
    pub gathered: &'a Tensor,
    /// (chunk, V rounded up to a multiple of 4), scratch.
    pub logits: &'a Tensor,
    /// (N), of [`TokenLogprob`]: written by the forward pass, not used by the backward one.
    pub logprobs: &'a Tensor,
    /// The batch's counts: how many targets, lists and tokens are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`token_logprob_backward`].
#[derive(Debug, Clone, Copy)]
pub struct TokenLogprobBackwardIo<'a> {
    /// The tensors of the forward pass; the windows' gradients are added to.
    pub forward: TokenLogprobIo<'a>,
    /// (N), of [`TokenGradient`].
    pub gradients: &'a Tensor,
    /// (L), of [`RowList`](crate::data::batch::RowList): one for each row with targets, its targets
    /// `start..end`.
    pub target_lists: &'a Tensor,
    /// (N, C), scratch: the gradient of each target's hidden row.
    pub dgathered: &'a Tensor,
    /// (T, C), written: zero in rows without targets.
    pub dhidden: &'a Tensor,
}

device_struct! {
    struct TokenLogprobParams {
        rows: u32,
        targets_count: u32,
        start: u32,
        vocab: u32,
        stride: u32,
        inverse_temperature: f32,
    }
}

/// Appends the log-probability of every target's token, the entropy of the distribution it comes
/// from and its log-sum-exp, a chunk of targets at a time so that only (chunk, V) logits exist.
///
/// With `z = head · hidden[row] / temperature` and `p = softmax(z)`:
/// `logprob = z[token] - ln Σ exp(z)`, `entropy = -Σ p ln p`.
///
/// A target's figures have the same bits whatever the size of the chunks and whichever other
/// targets there are. Where `gathered` and `logits` have a row for every target they are left for
/// [`token_logprob_backward`].
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit and for a temperature that is not finite or below
/// [`MIN_TEMPERATURE`], and what [`Plan::push`] refuses.
pub fn token_logprob_forward(
    plan: &mut Plan,
    io: &TokenLogprobIo<'_>,
    temperature: f32,
) -> Result<()> {
    let head = language_head(FORWARD, io, temperature)?;
    expect_shape::<TokenLogprob>(FORWARD, "logprobs", io.logprobs, &[head.targets])?;
    for chunk in head.chunks() {
        head.push_logits(plan, chunk)?;
        let bindings = vec![
            Binding::read(2, io.targets),
            Binding::write(3, io.logits),
            Binding::write(4, io.logprobs),
        ];
        let names = (FORWARD, "token_logprob_forward");
        push(
            plan,
            names,
            (&head, chunk),
            temperature,
            bindings,
            io.counts,
        )?;
    }
    Ok(())
}

/// Appends the gradients of [`token_logprob_forward`]: with those of the log-probabilities and
/// entropies,
///
/// `dz_v = (dlogprob (1[v = token] - p_v) - dentropy p_v (ln p_v + entropy)) / temperature`,
/// `dhidden[row] = Σ headᵀ dz` over the row's targets, `dhead += dz hidden[row]ᵀ`.
///
/// Where `gathered` and `logits` have a row for every target they must still hold what the forward
/// pass left there, and are overwritten; otherwise the logits are computed again, chunk by chunk.
///
/// # Errors
///
/// As [`token_logprob_forward`].
pub fn token_logprob_backward(
    plan: &mut Plan,
    io: &TokenLogprobBackwardIo<'_>,
    temperature: f32,
) -> Result<()> {
    let forward = &io.forward;
    let head = language_head(BACKWARD, forward, temperature)?;
    let gradients = LanguageHeadGradients {
        target_lists: io.target_lists,
        dgathered: io.dgathered,
        dhidden: io.dhidden,
    };
    head.check_gradients(&gradients)?;
    expect_shape::<TokenGradient>(BACKWARD, "gradients", io.gradients, &[head.targets])?;
    for chunk in head.chunks() {
        if !head.is_whole() {
            head.push_logits(plan, chunk)?;
        }
        let bindings = vec![
            Binding::read(2, forward.targets),
            Binding::write(3, forward.logits),
            Binding::read(5, io.gradients),
        ];
        let names = (BACKWARD, "token_logprob_backward");
        let counts = forward.counts;
        push(plan, names, (&head, chunk), temperature, bindings, counts)?;
        head.push_gradients(plan, chunk, io.dgathered)?;
    }
    head.push_scatter(plan, &gradients)
}

fn language_head<'a>(
    op: &'static str,
    io: &TokenLogprobIo<'a>,
    temperature: f32,
) -> Result<LanguageHead<'a>> {
    if !temperature.is_finite() || temperature < MIN_TEMPERATURE {
        let detail = format!("temperature {temperature}, expected {MIN_TEMPERATURE:e} or more");
        return Err(Error::shape(op, detail));
    }
    LanguageHead::new(
        op,
        LanguageHeadIo {
            hidden: io.hidden,
            head_windows: io.head_windows,
            targets: io.targets,
            gathered: io.gathered,
            logits: io.logits,
            counts: io.counts,
        },
    )
}

fn push<'a>(
    plan: &mut Plan,
    (label, entry): (&'static str, &'static str),
    (head, chunk): (&LanguageHead<'_>, Chunk),
    temperature: f32,
    mut bindings: Vec<Binding<'a>>,
    counts: Option<&'a Tensor>,
) -> Result<()> {
    let params = TokenLogprobParams {
        rows: to_u32(label, chunk.rows)?,
        targets_count: Count::Targets as u32,
        start: to_u32(label, chunk.start)?,
        vocab: to_u32(label, head.vocab)?,
        stride: to_u32(label, head.stride())?,
        inverse_temperature: temperature.recip(),
    };
    let (live, counts) = counts_lib(label, counts)?;
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &[LOGITS], &mut bindings, true);
    let kernel = head.row_kernel(plan, chunk, [&SHADER, &SUBGROUP]);
    libs.extend([DISPATCH, live, NUMERICS, ROW, kernel.lib, SHARED]);
    let elements = (chunk.rows * head.vocab) as u64;
    let passes = if label == BACKWARD { 3 } else { 1 };
    plan.push(&Dispatch {
        label,
        shader: kernel.shader,
        variant: Variant {
            entry,
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: kernel.workgroups,
        cost: Cost {
            flops: 6 * passes * elements,
            bytes: 4 * passes * elements,
        },
    })
}
