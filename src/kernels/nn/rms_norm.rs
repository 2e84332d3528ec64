//! RMSNorm over rows: `shaders/nn/norm.wgsl` and `norm_subgroup.wgsl` with `lib/norm/rms.wgsl`.

pub use super::InputGradient;
use super::norm::{Norm, NormKind, Pass, RMS, partials_len};
use crate::Result;
use crate::gpu::{Binding, Cost, Plan, Tensor};
use crate::kernels::{Size, expect_scratch, expect_shape};

const OP: &str = "nn.rms_norm";
const KIND: NormKind = NormKind {
    op: OP,
    formulas: RMS,
    parameters: 1,
    parameter_labels: ["nn.rms_norm_backward_chunks", "nn.rms_norm_backward_total"],
};

/// Sizes of an RMSNorm.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormSizes {
    /// Rows.
    pub rows: Size,
    /// C, the width of a row.
    pub columns: usize,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// The tensors of [`rms_norm_forward`].
#[derive(Debug, Clone, Copy)]
pub struct RmsNormIo<'a> {
    /// (rows, C)
    pub x: &'a Tensor,
    /// (C)
    pub weight: &'a Tensor,
    /// (rows, C), written.
    pub y: &'a Tensor,
    /// (rows), written: `1 / sqrt(mean(x²) + eps)` of each row.
    pub rstd: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`rms_norm_backward`].
#[derive(Debug, Clone, Copy)]
pub struct RmsNormBackwardIo<'a> {
    /// (rows, C): the forward's input.
    pub x: &'a Tensor,
    /// (C)
    pub weight: &'a Tensor,
    /// (rows): from the forward.
    pub rstd: &'a Tensor,
    /// (rows, C): gradient of y.
    pub dy: &'a Tensor,
    /// (rows, C): gradient of x, written or added to.
    pub dx: &'a Tensor,
    /// (C): gradient of weight, added to.
    pub dweight: &'a Tensor,
    /// Scratch of at least [`rms_norm_partials_len`] values.
    pub partials: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// Values of scratch that [`rms_norm_backward`] needs.
pub fn rms_norm_partials_len(rows: usize, columns: usize) -> usize {
    partials_len(rows, columns, KIND.parameters)
}

impl RmsNormSizes {
    fn norm(&self) -> Norm {
        Norm {
            kind: &KIND,
            rows: self.rows,
            columns: self.columns,
            eps: self.eps,
        }
    }
}

/// Appends `y = x rstd weight` for each row, with `rstd = 1 / sqrt(mean(x²) + eps)` of the row.
///
/// Rows past the live ones are not written. Squares are summed in `f32`, which overflows for values
/// above about 1e17.
///
/// Zhang and Sennrich 2019, arXiv 1910.07467, equation 4, with `eps` as Llama has it.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for shapes that do not agree, and what [`Plan::push`]
/// refuses.
pub fn rms_norm_forward(plan: &mut Plan, io: &RmsNormIo<'_>, sizes: &RmsNormSizes) -> Result<()> {
    let (rows, columns) = (sizes.rows.capacity, sizes.columns);
    expect_shape::<f32>(OP, "x", io.x, &[rows, columns])?;
    expect_shape::<f32>(OP, "weight", io.weight, &[columns])?;
    expect_shape::<f32>(OP, "y", io.y, &[rows, columns])?;
    expect_shape::<f32>(OP, "rstd", io.rstd, &[rows])?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.weight),
        Binding::write(4, io.y),
        Binding::write(5, io.rstd),
    ];
    let norm = sizes.norm();
    let elements = norm.elements();
    let pass = Pass {
        label: "nn.rms_norm_forward",
        entry: "norm_forward",
        accumulate: false,
        cost: Cost {
            flops: 4 * elements as u64,
            bytes: 4 * (2 * elements + rows + columns) as u64,
        },
    };
    norm.push_rows(plan, &pass, &bindings, io.counts)
}

/// Appends the backward of [`rms_norm_forward`] from `dy`: three dispatches.
///
/// With `n = x rstd` and `g = dy weight`, in each row `dx = rstd (g - n mean(g n))`, overwritten or
/// added as `input` says; `dweight += Σ_rows dy n`, in an order that depends on nothing but the
/// number of live rows.
///
/// # Errors
///
/// As [`rms_norm_forward`].
pub fn rms_norm_backward(
    plan: &mut Plan,
    io: &RmsNormBackwardIo<'_>,
    sizes: &RmsNormSizes,
    input: InputGradient,
) -> Result<()> {
    let (rows, columns) = (sizes.rows.capacity, sizes.columns);
    expect_shape::<f32>(OP, "x", io.x, &[rows, columns])?;
    expect_shape::<f32>(OP, "weight", io.weight, &[columns])?;
    expect_shape::<f32>(OP, "rstd", io.rstd, &[rows])?;
    expect_shape::<f32>(OP, "dy", io.dy, &[rows, columns])?;
    expect_shape::<f32>(OP, "dx", io.dx, &[rows, columns])?;
    expect_shape::<f32>(OP, "dweight", io.dweight, &[columns])?;
    let scratch = rms_norm_partials_len(rows, columns);
    expect_scratch(OP, "partials", io.partials, scratch)?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.weight),
        Binding::read(6, io.rstd),
        Binding::read(7, io.dy),
        Binding::write(8, io.dx),
    ];
    let norm = sizes.norm();
    let elements = norm.elements();
    let adds = usize::from(input == InputGradient::Add);
    let pass = Pass {
        label: "nn.rms_norm_backward",
        entry: "norm_backward",
        accumulate: input == InputGradient::Add,
        cost: Cost {
            flops: 8 * elements as u64,
            bytes: 4 * ((3 + adds) * elements + rows + columns) as u64,
        },
    };
    norm.push_rows(plan, &pass, &bindings, io.counts)?;
    let inputs = [
        Binding::read(2, io.x),
        Binding::read(6, io.rstd),
        Binding::read(7, io.dy),
    ];
    let gradients = [Binding::write(10, io.dweight)];
    norm.push_parameter_gradients(plan, &inputs, io.partials, &gradients, io.counts)
}
