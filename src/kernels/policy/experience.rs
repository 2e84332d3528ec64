//! What is remembered of sampled tokens: `shaders/policy/experience.wgsl`.

use super::lists::expect_lists;
use super::{Experience, Response, TokenLogprob};
use crate::Result;
use crate::data::batch::Target;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, shader, to_u32};

/// Both stages.
pub const SHADER: Shader = shader!("policy.experience", "policy/experience.wgsl", Core);

const TOKENS: &str = "policy.experience_tokens";
const RESPONSES: &str = "policy.experience_responses";

/// The tensors of [`experience`].
#[derive(Debug, Clone, Copy)]
pub struct ExperienceIo<'a> {
    /// (A), of [`RowList`](crate::data::RowList): each answer's entries of `answer_rows`.
    pub answer_lists: &'a Tensor,
    /// (N), of `u32`: indices of targets.
    pub answer_rows: &'a Tensor,
    /// (N), of [`Target`].
    pub targets: &'a Tensor,
    /// (N), of [`TokenLogprob`], under the policy that sampled.
    pub logprobs: &'a Tensor,
    /// (N), of [`TokenLogprob`], under the reference. Without, the same as `logprobs`: the KL
    /// divergence is 0.
    pub ref_logprobs: Option<&'a Tensor>,
    /// (N) values. Without, all 0.
    pub values: Option<&'a Tensor>,
    /// (N), of [`Experience`], written; advantage and returns become 0.
    pub experience: &'a Tensor,
    /// (A), of [`Response`]: `kl` and `surprisal` are written, the rest is left as it is.
    pub responses: &'a Tensor,
    /// The batch's counts: how many targets and answers are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct ExperienceParams {
        targets: u32,
        targets_count: u32,
        answers: u32,
        answers_count: u32,
        has_values: u32,
    }
}

/// Appends what fills [`Experience`] for each target, and the sums over each response.
///
/// `Experience::weight` is the target's weight, and 0 where the target belongs to no answer.
/// `kl = Σ (logprob - ref_logprob)` and `surprisal = -Σ logprob` run over the targets of the
/// answer's list whose weight is not 0, in a fixed order; they are 0 for an empty list.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit or more than 1,920,000
/// targets, and what [`Plan::push`] refuses.
pub fn experience(plan: &mut Plan, io: &ExperienceIo<'_>) -> Result<()> {
    let (answers, targets) = expect_lists(TOKENS, io.answer_lists, io.answer_rows)?;
    let ref_logprobs = io.ref_logprobs.unwrap_or(io.logprobs);
    expect_shape::<Target>(TOKENS, "targets", io.targets, &[targets])?;
    expect_shape::<TokenLogprob>(TOKENS, "logprobs", io.logprobs, &[targets])?;
    expect_shape::<TokenLogprob>(TOKENS, "ref_logprobs", ref_logprobs, &[targets])?;
    if let Some(values) = io.values {
        expect_shape::<f32>(TOKENS, "values", values, &[targets])?;
    }
    expect_shape::<Experience>(TOKENS, "experience", io.experience, &[targets])?;
    expect_shape::<Response>(RESPONSES, "responses", io.responses, &[answers])?;
    let params = ExperienceParams {
        targets: to_u32(TOKENS, targets)?,
        targets_count: Count::Targets as u32,
        answers: to_u32(RESPONSES, answers)?,
        answers_count: Count::Answers as u32,
        has_values: io.values.is_some().into(),
    };
    let (live, counts) = counts_lib(TOKENS, io.counts)?;
    let of_targets = [
        Binding::read(2, io.targets),
        Binding::read(3, io.logprobs),
        Binding::read(4, ref_logprobs),
    ];
    let mut bindings = of_targets.to_vec();
    bindings.extend([
        // Something has to be bound; without values it is not read.
        Binding::read(5, io.values.unwrap_or(io.logprobs)),
        Binding::write(6, io.experience),
    ]);
    bindings.extend(counts);
    let mut dispatch = Dispatch {
        label: TOKENS,
        shader: &SHADER,
        variant: Variant {
            entry: "experience_tokens",
            libs: &[DISPATCH, live],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: targets.div_ceil(64) as u64,
        cost: Cost {
            flops: 0,
            bytes: 84 * targets as u64,
        },
    };
    plan.push(&dispatch)?;
    let mut bindings = of_targets.to_vec();
    bindings.extend([
        Binding::read(7, io.answer_lists),
        Binding::read(8, io.answer_rows),
        Binding::write(9, io.responses),
    ]);
    bindings.extend(counts);
    dispatch.label = RESPONSES;
    dispatch.variant.entry = "experience_responses";
    dispatch.bindings = &bindings;
    dispatch.workgroups = answers as u64;
    dispatch.cost = Cost {
        flops: 3 * targets as u64,
        bytes: 52 * targets as u64 + 24 * answers as u64,
    };
    plan.push(&dispatch)
}
