//! What the kernels that turn hidden states into probabilities of tokens share: the hidden states
//! of a chunk of targets side by side (`shaders/nn/language_head.wgsl`), their logits under a head
//! in windows, the way back through both, and how a row of logits is read (`shaders/lib/logprob`).

use super::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use super::zero_rows::zero_rows;
use crate::data::batch::{RowList, Target};
use crate::gpu::{
    Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, operand};
use crate::kernels::{Count, DISPATCH, Size, counts_lib, expect_shape, lib, shader, to_u32};
use crate::{Error, Result};

/// Gathers the rows of hidden states that predict, and sums their gradients.
pub const SHADER: Shader = shader!("nn.language_head", "nn/language_head.wgsl", Core);

/// The distribution of a row of logits.
pub(crate) const ROW: &Lib = lib!("lib.logprob.row", "logprob/row.wgsl");
/// A row a workgroup.
const ROW_WORKGROUP: &Lib = lib!("lib.logprob.row_workgroup", "logprob/row_workgroup.wgsl");
/// A row a subgroup.
const ROW_SUBGROUP: &Lib = lib!("lib.logprob.row_subgroup", "logprob/row_subgroup.wgsl");

/// The logits, which gradients take the place of.
pub(crate) const LOGITS: &Operand = operand!("logits", 3, before 6);

const GATHER: &str = "nn.language_head_gather";
const SCATTER: &str = "nn.language_head_scatter";

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

/// The tensors of a [`LanguageHead`], by the names that its users give them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LanguageHeadIo<'a> {
    pub hidden: &'a Tensor,
    pub head_windows: &'a [HeadWindow<'a>],
    pub targets: &'a Tensor,
    pub gathered: &'a Tensor,
    pub logits: &'a Tensor,
    pub counts: Option<&'a Tensor>,
}

/// What the way back needs besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LanguageHeadGradients<'a> {
    pub target_lists: &'a Tensor,
    pub dgathered: &'a Tensor,
    pub dhidden: &'a Tensor,
}

/// Part of the targets: `rows` from `start` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub start: usize,
    pub rows: usize,
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
    struct LanguageHeadParams {
        rows: u32,
        count: u32,
        start: u32,
        width: u32,
    }
}

/// How the rows of a chunk's logits are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowKernel {
    pub shader: &'static Shader,
    pub lib: &'static Lib,
    pub workgroups: u64,
}

/// A language-model head over targets, its tensors checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LanguageHead<'a> {
    io: LanguageHeadIo<'a>,
    op: &'static str,
    width: usize,
    /// Rows of all windows.
    pub vocab: usize,
    /// N.
    pub targets: usize,
    /// Targets at a time.
    chunk: usize,
}

impl<'a> LanguageHead<'a> {
    pub fn new(op: &'static str, io: LanguageHeadIo<'a>) -> Result<Self> {
        let [chunk, width] = *io.gathered.shape() else {
            return Err(Error::shape(op, "gathered must be a matrix"));
        };
        if chunk == 0 || width == 0 {
            return Err(Error::shape(op, "gathered is empty"));
        }
        let head = Self {
            io,
            op,
            width,
            vocab: check_windows(op, io.head_windows, width)?,
            targets: io.targets.len(),
            chunk,
        };
        let tokens = io.hidden.len() / width;
        expect_shape::<f32>(op, "gathered", io.gathered, &[chunk, width])?;
        expect_shape::<f32>(op, "logits", io.logits, &[chunk, head.stride()])?;
        expect_shape::<Target>(op, "targets", io.targets, &[head.targets])?;
        expect_shape::<f32>(op, "hidden", io.hidden, &[tokens, width])?;
        to_u32(op, chunk * head.stride())?;
        Ok(head)
    }

    pub fn check_gradients(&self, gradients: &LanguageHeadGradients<'_>) -> Result<()> {
        let (op, lists) = (self.op, gradients.target_lists);
        let dgathered = [self.targets, self.width];
        expect_shape::<f32>(op, "dgathered", gradients.dgathered, &dgathered)?;
        expect_shape::<f32>(op, "dhidden", gradients.dhidden, self.io.hidden.shape())?;
        expect_shape::<RowList>(op, "target_lists", lists, &[lists.len()])
    }

    /// Columns of the logits.
    pub fn stride(&self) -> usize {
        self.vocab.next_multiple_of(4)
    }

    /// Whether one chunk holds all targets, so that its logits outlast a pass.
    pub fn is_whole(&self) -> bool {
        self.chunk >= self.targets
    }

    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (targets, chunk) = (self.targets, self.chunk);
        (0..targets).step_by(chunk).map(move |start| Chunk {
            start,
            rows: chunk.min(targets - start),
        })
    }

    /// `logits[i, :] = head · hidden[row of target start + i]`
    pub fn push_logits(&self, plan: &mut Plan, chunk: Chunk) -> Result<()> {
        self.push_gather(plan, chunk)?;
        let rows = (chunk.live(self.io.counts), self.io.counts);
        let (hidden, width) = (self.io.gathered, self.width);
        push_logits_of(
            plan,
            (hidden, width),
            self.io.head_windows,
            self.io.logits,
            rows,
        )
    }

    /// The kernel that reads a chunk's rows: `core` or, where the device has them, `subgroup`.
    pub fn row_kernel(
        &self,
        plan: &Plan,
        chunk: Chunk,
        [core, subgroup]: [&'static Shader; 2],
    ) -> RowKernel {
        if plan.gpu().subgroups() {
            RowKernel {
                shader: subgroup,
                lib: ROW_SUBGROUP,
                workgroups: chunk.rows.div_ceil(4) as u64,
            }
        } else {
            RowKernel {
                shader: core,
                lib: ROW_WORKGROUP,
                workgroups: chunk.rows as u64,
            }
        }
    }

    /// `dgathered[chunk] = dlogits · head`, `dhead += dlogitsᵀ · gathered`, where the logits have
    /// been overwritten by their gradient.
    pub fn push_gradients(&self, plan: &mut Plan, chunk: Chunk, dgathered: &Tensor) -> Result<()> {
        for (index, window) in self.io.head_windows.iter().enumerate() {
            let rows = window.weight.len() / self.width;
            let dlogits = Matrix::from_column(self.io.logits, window.first_row);
            let product = MatmulIo {
                a: dlogits,
                b: Matrix::whole(window.weight),
                out: Matrix {
                    tensor: dgathered,
                    offset: chunk.start * self.width,
                    stride: self.width,
                },
                epilogue: if index == 0 {
                    Epilogue::Store
                } else {
                    Epilogue::Add
                },
                counts: self.io.counts,
            };
            let sizes = MatmulSizes {
                layout: Layout::Nn,
                m: chunk.live(self.io.counts),
                n: self.width,
                k: Size::fixed(rows),
            };
            matmul(plan, &product, &sizes)?;
            let Some(dweight) = window.dweight else {
                continue;
            };
            let product = MatmulIo {
                a: dlogits,
                b: Matrix::whole(self.io.gathered),
                out: Matrix::whole(dweight),
                epilogue: Epilogue::Add,
                counts: self.io.counts,
            };
            let sizes = MatmulSizes {
                layout: Layout::Tn,
                m: Size::fixed(rows),
                n: self.width,
                k: chunk.live(self.io.counts),
            };
            matmul(plan, &product, &sizes)?;
        }
        Ok(())
    }

    /// `dhidden[row] = Σ dgathered` over the row's targets; zero in rows without.
    pub fn push_scatter(
        &self,
        plan: &mut Plan,
        gradients: &LanguageHeadGradients<'_>,
    ) -> Result<()> {
        zero_rows(plan, gradients.dhidden, self.io.counts)?;
        let params = LanguageHeadParams {
            rows: to_u32(SCATTER, gradients.target_lists.len())?,
            count: Count::TargetLists as u32,
            start: 0,
            width: to_u32(SCATTER, self.width)?,
        };
        let bindings = vec![
            Binding::read(5, gradients.target_lists),
            Binding::read(6, gradients.dgathered),
            Binding::write(7, gradients.dhidden),
        ];
        let names = (SCATTER, "language_head_scatter");
        push_rows(plan, names, params, bindings, self.io.counts)
    }

    fn push_gather(&self, plan: &mut Plan, chunk: Chunk) -> Result<()> {
        let params = LanguageHeadParams {
            rows: to_u32(GATHER, chunk.rows)?,
            count: Count::Targets as u32,
            start: to_u32(GATHER, chunk.start)?,
            width: to_u32(GATHER, self.width)?,
        };
        let bindings = vec![
            Binding::read(2, self.io.targets),
            Binding::read(3, self.io.hidden),
            Binding::write(4, self.io.gathered),
        ];
        let names = (GATHER, "language_head_gather");
        push_rows(plan, names, params, bindings, self.io.counts)
    }
}

/// The windows' rows together.
fn check_windows(op: &'static str, windows: &[HeadWindow<'_>], width: usize) -> Result<usize> {
    let mut vocab = 0;
    for window in windows {
        let rows = window.weight.len() / width;
        expect_shape::<f32>(op, "head weight", window.weight, &[rows, width])?;
        if let Some(dweight) = window.dweight {
            expect_shape::<f32>(op, "head gradient", dweight, &[rows, width])?;
        }
        if window.first_row != vocab {
            let first = window.first_row;
            let detail = format!("a window of the head starts at row {first}, expected {vocab}");
            return Err(Error::shape(op, detail));
        }
        vocab += rows;
    }
    if vocab == 0 {
        return Err(Error::shape(op, "the head has no rows"));
    }
    Ok(vocab)
}

fn push_rows<'a>(
    plan: &mut Plan,
    (label, entry): (&'static str, &'static str),
    params: LanguageHeadParams,
    mut bindings: Vec<Binding<'a>>,
    counts: Option<&'a Tensor>,
) -> Result<()> {
    let (live, counts) = counts_lib(label, counts)?;
    bindings.extend(counts);
    plan.push(&Dispatch {
        label,
        shader: &SHADER,
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

/// `logits[:, ..V] = hidden headᵀ` for the live rows; hidden is (R, width), logits (R, V rounded up
/// to a multiple of 4).
pub(crate) fn push_logits_of(
    plan: &mut Plan,
    (hidden, width): (&Tensor, usize),
    head: &[HeadWindow<'_>],
    logits: &Tensor,
    (rows, counts): (Size, Option<&Tensor>),
) -> Result<()> {
    for window in head {
        let io = MatmulIo {
            a: Matrix::whole(hidden),
            b: Matrix::whole(window.weight),
            out: Matrix::from_column(logits, window.first_row),
            epilogue: Epilogue::Store,
            counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Nt,
            m: rows,
            n: window.weight.len() / width,
            k: Size::fixed(width),
        };
        matmul(plan, &io, &sizes)?;
    }
    Ok(())
}
