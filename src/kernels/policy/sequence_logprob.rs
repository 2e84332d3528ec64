//! Log-probabilities of whole answers: `shaders/policy/sequence_logprob.wgsl`.

use super::lists::expect_lists;
use super::metrics::{RATIO, STRUCTS};
use super::{KL, TokenLogprob};
use crate::Result;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, shader, to_u32};

/// The kernel's text: a workgroup an answer.
pub const SHADER: Shader = shader!(
    "policy.sequence_logprob",
    "policy/sequence_logprob.wgsl",
    Core
);

const OP: &str = "policy.sequence_logprob";

/// The tensors of [`sequence_logprob`].
#[derive(Debug, Clone, Copy)]
pub struct SequenceLogprobIo<'a> {
    /// (A), of [`RowList`](crate::data::batch::RowList): each answer's part of `answer_rows`.
    pub answer_lists: &'a Tensor,
    /// (N): indices of targets.
    pub answer_rows: &'a Tensor,
    /// (N), of [`TokenLogprob`].
    pub logprobs: &'a Tensor,
    /// (A), written: the summed log-probability of each answer, 0 for one without targets.
    pub sequence_logprobs: &'a Tensor,
    /// The batch's counts: how many answers are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct SequenceLogprobParams {
        answers: u32,
        answers_count: u32,
    }
}

/// Appends the sum of the log-probabilities of each answer's targets, in the order in which
/// [`dpo_loss`](super::dpo_loss::dpo_loss) adds them: same weights, same bits.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`]
/// refuses.
pub fn sequence_logprob(plan: &mut Plan, io: &SequenceLogprobIo<'_>) -> Result<()> {
    let (answers, n) = expect_lists(OP, io.answer_lists, io.answer_rows)?;
    expect_shape::<TokenLogprob>(OP, "logprobs", io.logprobs, &[n])?;
    expect_shape::<f32>(OP, "sequence_logprobs", io.sequence_logprobs, &[answers])?;
    let params = SequenceLogprobParams {
        answers: to_u32(OP, answers)?,
        answers_count: Count::Answers as u32,
    };
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.answer_lists),
        Binding::read(3, io.answer_rows),
        Binding::read(4, io.logprobs),
        Binding::write(5, io.sequence_logprobs),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "sequence_logprob",
            libs: &[DISPATCH, live, KL, RATIO, STRUCTS],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: answers as u64,
        cost: Cost {
            flops: n as u64,
            bytes: 20 * (n + answers) as u64,
        },
    })
}
