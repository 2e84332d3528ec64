//! The value head on rows that predict: `shaders/nn/scalar_head.wgsl`.

use crate::Result;
use crate::data::batch::Target;
use crate::gpu::{Plan, Tensor};
use crate::kernels::Count;
use crate::kernels::nn::scalar_head::{ScalarHead, ScalarHeadGradients, ScalarHeadKind, TARGETS};

pub use crate::kernels::nn::InputGradient;

const KIND: ScalarHeadKind = ScalarHeadKind {
    labels: [
        "policy.value_head_forward",
        "policy.value_head_dhidden",
        "policy.value_head_dw",
    ],
    names: ["targets", "values", "target_lists"],
    entries: TARGETS,
    entries_count: Count::Targets,
    lists_count: Count::TargetLists,
};

/// The tensors of [`value_head_forward`].
#[derive(Debug, Clone, Copy)]
pub struct ValueHeadIo<'a> {
    /// (T, C), after the value model's last normalisation.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (N), of [`Target`]; only their rows are used.
    pub targets: &'a Tensor,
    /// (N), written: the estimate before each target's token.
    pub values: &'a Tensor,
    /// The batch's counts: how many targets are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends `values[n] = hidden[row of target n] · w`, without a bias.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`]
/// refuses.
pub fn value_head_forward(plan: &mut Plan, io: &ValueHeadIo<'_>) -> Result<()> {
    let head = ScalarHead {
        kind: &KIND,
        hidden: io.hidden,
        w: io.w,
        entries: io.targets,
        counts: io.counts,
    };
    head.push_forward::<Target>(plan, io.values)
}

/// The tensors of [`value_head_backward`].
#[derive(Debug, Clone, Copy)]
pub struct ValueHeadBackwardIo<'a> {
    /// (T, C), as in the forward pass.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (N), of [`Target`], sorted by row.
    pub targets: &'a Tensor,
    /// (L), of [`RowList`](crate::data::batch::RowList): one for each row with targets, its targets
    /// `start..end`.
    pub target_lists: &'a Tensor,
    /// (N): the gradient of the values.
    pub dvalues: &'a Tensor,
    /// (T, C), written or added to.
    pub dhidden: &'a Tensor,
    /// (C), added to.
    pub dw: &'a Tensor,
    /// The batch's counts: how many targets, tokens and lists are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends the gradients of [`value_head_forward`]:
/// `dhidden[row] = w Σ dvalue[n]` over the row's targets, `dw += Σ dvalue[n] hidden[row of n]`.
///
/// [`InputGradient::Add`] adds to `dhidden` instead: for a head on hidden states that another head
/// shares and whose gradient that one has written.
///
/// # Errors
///
/// As [`value_head_forward`].
pub fn value_head_backward(
    plan: &mut Plan,
    io: &ValueHeadBackwardIo<'_>,
    input: InputGradient,
) -> Result<()> {
    let head = ScalarHead {
        kind: &KIND,
        hidden: io.hidden,
        w: io.w,
        entries: io.targets,
        counts: io.counts,
    };
    let gradients = ScalarHeadGradients {
        lists: io.target_lists,
        list_rows: None,
        dout: io.dvalues,
        dhidden: io.dhidden,
        dw: io.dw,
        input,
    };
    head.push_backward::<Target>(plan, &gradients)
}
