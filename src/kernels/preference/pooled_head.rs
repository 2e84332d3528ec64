//! The scalar reward head on pooled rows: `shaders/nn/scalar_head.wgsl`.

use crate::Result;
use crate::data::batch::Answer;
use crate::gpu::{Plan, Tensor};
use crate::kernels::Count;
use crate::kernels::nn::InputGradient;
use crate::kernels::nn::scalar_head::{ANSWERS, ScalarHead, ScalarHeadGradients, ScalarHeadKind};

const KIND: ScalarHeadKind = ScalarHeadKind {
    labels: [
        "preference.pooled_head_forward",
        "preference.pooled_head_dhidden",
        "preference.pooled_head_dw",
    ],
    names: ["answers", "rewards", "pooled_lists"],
    entries: ANSWERS,
    entries_count: Count::Answers,
    lists_count: Count::PooledLists,
};

/// The tensors of [`pooled_head_forward`].
#[derive(Debug, Clone, Copy)]
pub struct PooledHeadIo<'a> {
    /// (T, C), after the model's last normalisation.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (A), of [`Answer`].
    pub answers: &'a Tensor,
    /// (A), written.
    pub rewards: &'a Tensor,
    /// The batch's counts: how many answers are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends `reward[a] = hidden[pooled_row of a] · w`; there is no bias, as in Hugging Face's
/// `score` heads.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn pooled_head_forward(plan: &mut Plan, io: &PooledHeadIo<'_>) -> Result<()> {
    let head = ScalarHead {
        kind: &KIND,
        hidden: io.hidden,
        w: io.w,
        entries: io.answers,
        counts: io.counts,
    };
    head.push_forward::<Answer>(plan, io.rewards)
}

/// The tensors of [`pooled_head_backward`].
#[derive(Debug, Clone, Copy)]
pub struct PooledHeadBackwardIo<'a> {
    /// (T, C), as in the forward pass.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (A), of [`Answer`].
    pub answers: &'a Tensor,
    /// (L), of [`RowList`](crate::data::batch::RowList): one for each row that is pooled.
    pub pooled_lists: &'a Tensor,
    /// The answers that the lists name.
    pub pooled_rows: &'a Tensor,
    /// (A): the gradient of the rewards.
    pub drewards: &'a Tensor,
    /// (T, C), written: zero in rows that no answer pools.
    pub dhidden: &'a Tensor,
    /// (C), added to.
    pub dw: &'a Tensor,
    /// The batch's counts: how many answers, tokens and lists are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends the gradients of [`pooled_head_forward`]:
/// `dhidden[row] = w Σ dreward[a]` over the answers pooled there, `dw += Σ dreward[a] hidden[row]`.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn pooled_head_backward(plan: &mut Plan, io: &PooledHeadBackwardIo<'_>) -> Result<()> {
    let head = ScalarHead {
        kind: &KIND,
        hidden: io.hidden,
        w: io.w,
        entries: io.answers,
        counts: io.counts,
    };
    let gradients = ScalarHeadGradients {
        lists: io.pooled_lists,
        list_rows: Some(io.pooled_rows),
        dout: io.drewards,
        dhidden: io.dhidden,
        dw: io.dw,
        input: InputGradient::Overwrite,
    };
    head.push_backward::<Answer>(plan, &gradients)
}
