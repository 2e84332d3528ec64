//! Next-token cross-entropy together with the language-model head:
//! `shaders/nn/cross_entropy.wgsl`, its form for subgroups, and `shaders/nn/cross_entropy_rows.wgsl`.

use super::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use super::zero_rows::zero_rows;
use crate::data::batch::{RowList, Target};
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::{
    Count, DISPATCH, NUMERICS, Size, counts_lib, expect_shape, lib, shader, to_u32,
};
use crate::{Error, Result};

/// A row of logits a workgroup.
pub const SHADER: Shader = shader!("nn.cross_entropy", "nn/cross_entropy.wgsl", Core);
/// A row of logits a subgroup.
pub const SUBGROUP: Shader = shader!(
    "nn.cross_entropy_subgroup",
    "nn/cross_entropy_subgroup.wgsl",
    Subgroups
);
/// Gathers the rows of hidden states that predict, and sums their gradients.
pub const ROWS: Shader = shader!("nn.cross_entropy_rows", "nn/cross_entropy_rows.wgsl", Core);

const ROW: &Lib = lib!("lib.cross_entropy.row", "cross_entropy/row.wgsl");
const OP: &str = "nn.cross_entropy";
const GATHER: &str = "nn.cross_entropy_gather";
const SCATTER: &str = "nn.cross_entropy_scatter";

/// Consecutive rows of the language-model head, in a binding of their own.
#[derive(Debug, Clone, Copy)]
pub struct HeadWindow<'a> {
    /// (rows, C): a row a token, as in a tied embedding.
    pub weight: &'a Tensor,
    /// (rows, C), added to; `None` for a head that does not learn. Ignored without gradients.
    pub dweight: Option<&'a Tensor>,
    /// The token of the first row. A multiple of 4 is faster.
    pub first_row: usize,
}

/// What the gradients need besides [`CrossEntropyIo`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyGradients<'a> {
    /// (L), of [`RowList`]: one for each row with targets, its targets `start..end`.
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
    /// (N), of [`Target`], sorted by row; every token under V.
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

#[derive(Debug, Clone, Copy)]
struct Shape {
    width: usize,
    vocab: usize,
    targets: usize,
    chunk: usize,
}

impl Shape {
    fn stride(&self) -> usize {
        self.vocab.next_multiple_of(4)
    }
}

/// Part of the targets: `rows` from `start` on.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    start: usize,
    rows: usize,
}

impl Chunk {
    fn live(&self, counts: Option<&Tensor>) -> Size {
        match counts {
            Some(_) => Size::live_from(self.rows, Count::Targets, self.start),
            None => Size::fixed(self.rows),
        }
    }
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

device_struct! {
    struct CrossEntropyRowsParams {
        rows: u32,
        count: u32,
        start: u32,
        width: u32,
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
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn cross_entropy(plan: &mut Plan, io: &CrossEntropyIo<'_>, target_scale: f32) -> Result<()> {
    let shape = check(io)?;
    for start in (0..shape.targets).step_by(shape.chunk) {
        let chunk = Chunk {
            start,
            rows: shape.chunk.min(shape.targets - start),
        };
        push_gather(plan, io, &shape, chunk)?;
        push_logits(plan, io, &shape, chunk)?;
        push_softmax(plan, io, &shape, chunk, target_scale)?;
        if let Some(gradients) = &io.gradients {
            push_gradients(plan, io, gradients, &shape, chunk)?;
        }
    }
    match &io.gradients {
        Some(gradients) => push_scatter(plan, io, gradients, &shape),
        None => Ok(()),
    }
}

fn check(io: &CrossEntropyIo<'_>) -> Result<Shape> {
    let [chunk, width] = *io.gathered.shape() else {
        return Err(Error::shape(OP, "gathered must be a matrix"));
    };
    if chunk == 0 || width == 0 {
        return Err(Error::shape(OP, "gathered is empty"));
    }
    let mut vocab = 0;
    for window in io.head_windows {
        let rows = window.weight.len() / width;
        expect_shape::<f32>(OP, "head weight", window.weight, &[rows, width])?;
        if let Some(dweight) = window.dweight {
            expect_shape::<f32>(OP, "head gradient", dweight, &[rows, width])?;
        }
        if window.first_row != vocab {
            let first = window.first_row;
            return Err(Error::shape(
                OP,
                format!("a window of the head starts at row {first}, expected {vocab}"),
            ));
        }
        vocab += rows;
    }
    if vocab == 0 {
        return Err(Error::shape(OP, "the head has no rows"));
    }
    let shape = Shape {
        width,
        vocab,
        targets: io.targets.len(),
        chunk,
    };
    expect_shape::<f32>(OP, "gathered", io.gathered, &[chunk, width])?;
    expect_shape::<f32>(OP, "logits", io.logits, &[chunk, shape.stride()])?;
    expect_shape::<Target>(OP, "targets", io.targets, &[shape.targets])?;
    expect_shape::<f32>(OP, "logprobs", io.logprobs, &[shape.targets])?;
    let tokens = io.hidden.len() / width;
    expect_shape::<f32>(OP, "hidden", io.hidden, &[tokens, width])?;
    if let Some(gradients) = &io.gradients {
        let (dgathered, lists) = (gradients.dgathered, gradients.target_lists);
        expect_shape::<f32>(OP, "dgathered", dgathered, &[shape.targets, width])?;
        expect_shape::<f32>(OP, "dhidden", gradients.dhidden, &[tokens, width])?;
        expect_shape::<RowList>(OP, "target_lists", lists, &[lists.len()])?;
    }
    Ok(shape)
}

fn push_gather(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    shape: &Shape,
    chunk: Chunk,
) -> Result<()> {
    let params = CrossEntropyRowsParams {
        rows: to_u32(GATHER, chunk.rows)?,
        count: Count::Targets as u32,
        start: to_u32(GATHER, chunk.start)?,
        width: to_u32(GATHER, shape.width)?,
    };
    let bindings = vec![
        Binding::read(2, io.targets),
        Binding::read(3, io.hidden),
        Binding::write(4, io.gathered),
    ];
    push_rows(
        plan,
        (GATHER, "cross_entropy_gather"),
        params,
        bindings,
        io.counts,
    )
}

fn push_scatter(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    gradients: &CrossEntropyGradients<'_>,
    shape: &Shape,
) -> Result<()> {
    zero_rows(plan, gradients.dhidden, io.counts)?;
    let params = CrossEntropyRowsParams {
        rows: to_u32(SCATTER, gradients.target_lists.len())?,
        count: Count::TargetLists as u32,
        start: 0,
        width: to_u32(SCATTER, shape.width)?,
    };
    let bindings = vec![
        Binding::read(5, gradients.target_lists),
        Binding::read(6, gradients.dgathered),
        Binding::write(7, gradients.dhidden),
    ];
    push_rows(
        plan,
        (SCATTER, "cross_entropy_scatter"),
        params,
        bindings,
        io.counts,
    )
}

fn push_rows<'a>(
    plan: &mut Plan,
    (label, entry): (&'static str, &'static str),
    params: CrossEntropyRowsParams,
    mut bindings: Vec<Binding<'a>>,
    counts: Option<&'a Tensor>,
) -> Result<()> {
    let (live, counts) = counts_lib(label, counts)?;
    bindings.extend(counts);
    plan.push(&Dispatch {
        label,
        shader: &ROWS,
        variant: Variant {
            entry,
            libs: &[DISPATCH, live],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: params.rows.into(),
        cost: Cost {
            flops: 0,
            bytes: 8 * u64::from(params.rows) * u64::from(params.width),
        },
    })
}

/// `logits[:, window] = gathered · weightᵀ`
fn push_logits(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    shape: &Shape,
    chunk: Chunk,
) -> Result<()> {
    for window in io.head_windows {
        matmul(
            plan,
            &MatmulIo {
                a: Matrix::whole(io.gathered),
                b: Matrix::whole(window.weight),
                out: Matrix::from_column(io.logits, window.first_row),
                epilogue: Epilogue::Store,
                counts: io.counts,
            },
            &MatmulSizes {
                layout: Layout::Nt,
                m: chunk.live(io.counts),
                n: window.weight.len() / shape.width,
                k: Size::fixed(shape.width),
            },
        )?;
    }
    Ok(())
}

fn push_softmax(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    shape: &Shape,
    chunk: Chunk,
    target_scale: f32,
) -> Result<()> {
    let params = CrossEntropyParams {
        rows: to_u32(OP, chunk.rows)?,
        targets_count: Count::Targets as u32,
        start: to_u32(OP, chunk.start)?,
        vocab: to_u32(OP, shape.vocab)?,
        stride: to_u32(OP, shape.stride())?,
        target_scale,
    };
    to_u32(OP, shape.chunk * shape.stride())?;
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.targets),
        Binding::write(3, io.logits),
        Binding::write(4, io.logprobs),
    ];
    bindings.extend(counts);
    let (shader, rows_per_group) = if plan.gpu().subgroups() {
        (&SUBGROUP, 4)
    } else {
        (&SHADER, 1)
    };
    let elements = (chunk.rows * shape.vocab) as u64;
    let backward = io.gradients.is_some();
    plan.push(&Dispatch {
        label: OP,
        shader,
        variant: Variant {
            entry: "cross_entropy",
            libs: &[DISPATCH, live, NUMERICS, ROW],
            consts: &[("BACKWARD", Const::Bool(backward))],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: chunk.rows.div_ceil(rows_per_group) as u64,
        cost: Cost {
            flops: if backward { 8 } else { 4 } * elements,
            bytes: if backward { 12 } else { 4 } * elements,
        },
    })
}

/// `dgathered[chunk] = Σ dlogits[:, window] · weight`, `dweight += dlogits[:, window]ᵀ · gathered`
fn push_gradients(
    plan: &mut Plan,
    io: &CrossEntropyIo<'_>,
    gradients: &CrossEntropyGradients<'_>,
    shape: &Shape,
    chunk: Chunk,
) -> Result<()> {
    for (index, window) in io.head_windows.iter().enumerate() {
        let rows = window.weight.len() / shape.width;
        let dlogits = Matrix::from_column(io.logits, window.first_row);
        let out = Matrix {
            tensor: gradients.dgathered,
            offset: chunk.start * shape.width,
            stride: shape.width,
        };
        let epilogue = if index == 0 {
            Epilogue::Store
        } else {
            Epilogue::Add
        };
        let product = MatmulIo {
            a: dlogits,
            b: Matrix::whole(window.weight),
            out,
            epilogue,
            counts: io.counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: chunk.live(io.counts),
            n: shape.width,
            k: Size::fixed(rows),
        };
        matmul(plan, &product, &sizes)?;
        let Some(dweight) = window.dweight else {
            continue;
        };
        let product = MatmulIo {
            a: dlogits,
            b: Matrix::whole(io.gathered),
            out: Matrix::whole(dweight),
            epilogue: Epilogue::Add,
            counts: io.counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Tn,
            m: Size::fixed(rows),
            n: shape.width,
            k: chunk.live(io.counts),
        };
        matmul(plan, &product, &sizes)?;
    }
    Ok(())
}
