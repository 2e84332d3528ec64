//! Next-token cross-entropy together with the language-model head:
//! `shaders/nn/cross_entropy.wgsl` and its form for subgroups.

use super::language_head::{
    Chunk, LOGITS, LanguageHead, LanguageHeadGradients, LanguageHeadIo, ROW,
};
use crate::Result;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::bind_operands;
use crate::kernels::{Count, DISPATCH, NUMERICS, counts_lib, expect_shape, lib, shader, to_u32};

pub use super::language_head::HeadWindow;

/// A row of logits a workgroup.
pub const SHADER: Shader = shader!("nn.cross_entropy", "nn/cross_entropy.wgsl", Core);
/// A row of logits a subgroup.
pub const SUBGROUP: Shader = shader!(
    "nn.cross_entropy_subgroup",
    "nn/cross_entropy_subgroup.wgsl",
    Subgroups
);

const SHARED: &Lib = lib!("lib.logprob.cross_entropy", "logprob/cross_entropy.wgsl");
const OP: &str = "nn.cross_entropy";

/// What the gradients need besides [`CrossEntropyIo`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyGradients<'a> {
    /// (L), of [`RowList`](crate::data::batch::RowList): one for each row with targets, its targets `start..end`.
    pub target_lists: &'a Tensor,
    /// (N, C), scratch: the gradient of each target's hidden row.
    pub dgathered: &'a Tensor,
    /// (T, C), written: zero in rows without targets.
    pub dhidden: &'a Tensor,
}

/// The tensors of [`cross_entropy`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyIo<'a> {
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
    /// (N), written: the log-probability of each target's token, without weight or scale.
    pub logprobs: &'a Tensor,
    /// The gradients; `None` for an evaluation.
    pub gradients: Option<CrossEntropyGradients<'a>>,
    /// The batch's counts: how many targets, lists and tokens are live, and `target_scale`.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct CrossEntropyParams {
        rows: u32,
        targets_count: u32,
        start: u32,
        vocab: u32,
        stride: u32,
        target_scale: f32,
    }
}

/// Appends the cross-entropy of every target and, where asked for, its gradients, a chunk of
/// targets at a time so that only (chunk, V) logits exist.
///
/// With `z = head · hidden[row]`: `logprob = z[token] - ln Σ exp(z)`, the loss is `target_scale
/// Σ -weight logprob`; `dz = target_scale weight (softmax(z) - onehot(token))`, `dhidden[row] =
/// Σ headᵀ dz` over the row's targets, `dhead += dz hidden[row]ᵀ`. `target_scale` serves where
/// there are no counts.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn cross_entropy(plan: &mut Plan, io: &CrossEntropyIo<'_>, target_scale: f32) -> Result<()> {
    let head = LanguageHead::new(
        OP,
        LanguageHeadIo {
            hidden: io.hidden,
            head_windows: io.head_windows,
            targets: io.targets,
            gathered: io.gathered,
            logits: io.logits,
            counts: io.counts,
        },
    )?;
    expect_shape::<f32>(OP, "logprobs", io.logprobs, &[head.targets])?;
    let gradients = io.gradients.map(|gradients| LanguageHeadGradients {
        target_lists: gradients.target_lists,
        dgathered: gradients.dgathered,
        dhidden: gradients.dhidden,
    });
    if let Some(gradients) = &gradients {
        head.check_gradients(gradients)?;
    }
    for chunk in head.chunks() {
        head.push_logits(plan, chunk)?;
        push_softmax(plan, io, &head, chunk, target_scale)?;
        if let Some(gradients) = &gradients {
            head.push_gradients(plan, chunk, gradients.dgathered)?;
        }
    }
    match &gradients {
        Some(gradients) => head.push_scatter(plan, gradients),
        None => Ok(()),
    }
}

fn push_softmax(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    head: &LanguageHead<'_>,
    chunk: Chunk,
    target_scale: f32,
) -> Result<()> {
    let params = CrossEntropyParams {
        rows: to_u32(OP, chunk.rows)?,
        targets_count: Count::Targets as u32,
        start: to_u32(OP, chunk.start)?,
        vocab: to_u32(OP, head.vocab)?,
        stride: to_u32(OP, head.stride())?,
        target_scale,
    };
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.targets),
        Binding::write(3, io.logits),
        Binding::write(4, io.logprobs),
    ];
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &[LOGITS], &mut bindings, true);
    let kernel = head.row_kernel(plan, chunk, [&SHADER, &SUBGROUP]);
    let elements = (chunk.rows * head.vocab) as u64;
    libs.extend([DISPATCH, live, NUMERICS, ROW, kernel.lib, SHARED]);
    let backward = io.gradients.is_some();
    plan.push(&Dispatch {
        label: OP,
        shader: kernel.shader,
        variant: Variant {
            entry: "cross_entropy",
            libs: &libs,
            consts: &[("BACKWARD", Const::Bool(backward))],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: kernel.workgroups,
        cost: Cost {
            flops: if backward { 8 } else { 4 } * elements,
            bytes: if backward { 12 } else { 4 } * elements,
        },
    })
}
