//! LayerNorm over rows: `shaders/nn/norm.wgsl` and `norm_subgroup.wgsl` with `lib/norm/layer.wgsl`.

pub use super::InputGradient;
use super::norm::{LAYER, Norm, NormKind, Pass, partials_len};
use crate::Result;
use crate::gpu::{Binding, Cost, Plan, Tensor};
use crate::kernels::{Size, expect_scratch, expect_shape};

const OP: &str = "nn.layer_norm";
const KIND: NormKind = NormKind {
    op: OP,
    formulas: LAYER,
    parameters: 2,
    parameter_labels: [
        "nn.layer_norm_backward_chunks",
        "nn.layer_norm_backward_total",
    ],
};

/// Sizes of a LayerNorm.
#[derive(Debug, Clone, Copy)]
pub struct LayerNormSizes {
    /// Rows.
    pub rows: Size,
    /// C, the width of a row.
    pub columns: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// The tensors of [`layer_norm_forward`].
#[derive(Debug, Clone, Copy)]
pub struct LayerNormIo<'a> {
    /// (rows, C)
    pub x: &'a Tensor,
    /// (C)
    pub weight: &'a Tensor,
    /// (C)
    pub bias: &'a Tensor,
    /// (rows, C), written.
    pub y: &'a Tensor,
    /// (rows), written: the mean of each row.
    pub mean: &'a Tensor,
    /// (rows), written: `1 / sqrt(variance + eps)` of each row.
    pub rstd: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`layer_norm_backward`].
#[derive(Debug, Clone, Copy)]
pub struct LayerNormBackwardIo<'a> {
    /// (rows, C): the forward's input.
    pub x: &'a Tensor,
    /// (C)
    pub weight: &'a Tensor,
    /// (rows): from the forward.
    pub mean: &'a Tensor,
    /// (rows): from the forward.
    pub rstd: &'a Tensor,
    /// (rows, C): gradient of y.
    pub dy: &'a Tensor,
    /// (rows, C): gradient of x, written or added to.
    pub dx: &'a Tensor,
    /// (C): gradient of weight, added to.
    pub dweight: &'a Tensor,
    /// (C): gradient of bias, added to.
    pub dbias: &'a Tensor,
    /// Scratch of at least [`layer_norm_partials_len`] values.
    pub partials: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// Values of scratch that [`layer_norm_backward`] needs.
pub fn layer_norm_partials_len(rows: usize, columns: usize) -> usize {
    partials_len(rows, columns, KIND.parameters)
}

impl LayerNormSizes {
    fn norm(&self) -> Norm {
        Norm {
            kind: &KIND,
            rows: self.rows,
            columns: self.columns,
            eps: self.eps,
        }
    }
}

/// Appends `y = (x - mean) rstd weight + bias` for each row, with `mean` and `rstd` of the row.
///
/// Rows past the live ones are not written.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for shapes that do not agree, and what [`Plan::push`]
/// refuses.
pub fn layer_norm_forward(
    plan: &mut Plan,
    io: &LayerNormIo<'_>,
    sizes: &LayerNormSizes,
) -> Result<()> {
    let (rows, columns) = (sizes.rows.capacity, sizes.columns);
    expect_shape::<f32>(OP, "x", io.x, &[rows, columns])?;
    expect_shape::<f32>(OP, "weight", io.weight, &[columns])?;
    expect_shape::<f32>(OP, "bias", io.bias, &[columns])?;
    expect_shape::<f32>(OP, "y", io.y, &[rows, columns])?;
    expect_shape::<f32>(OP, "mean", io.mean, &[rows])?;
    expect_shape::<f32>(OP, "rstd", io.rstd, &[rows])?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.weight),
        Binding::write(4, io.y),
        Binding::write(5, io.rstd),
        Binding::read(11, io.bias),
        Binding::write(12, io.mean),
    ];
    let norm = sizes.norm();
    let elements = norm.elements();
    let pass = Pass {
        label: "nn.layer_norm_forward",
        entry: "norm_forward",
        accumulate: false,
        cost: Cost {
            flops: 9 * elements as u64,
            bytes: 4 * (2 * elements + 2 * rows + 2 * columns) as u64,
        },
    };
    norm.push_rows(plan, &pass, &bindings, io.counts)
}

/// Appends the backward of [`layer_norm_forward`] from `dy`: three dispatches.
///
/// With `n = (x - mean) rstd` and `g = dy weight`, in each row
/// `dx = rstd (g - mean(g) - n mean(g n))`, overwritten or added as `input` says;
/// `dweight += Σ_rows dy n` and `dbias += Σ_rows dy`, in an order that depends on nothing but the
/// number of live rows.
///
/// # Errors
///
/// As [`layer_norm_forward`].
pub fn layer_norm_backward(
    plan: &mut Plan,
    io: &LayerNormBackwardIo<'_>,
    sizes: &LayerNormSizes,
    input: InputGradient,
) -> Result<()> {
    let (rows, columns) = (sizes.rows.capacity, sizes.columns);
    expect_shape::<f32>(OP, "x", io.x, &[rows, columns])?;
    expect_shape::<f32>(OP, "weight", io.weight, &[columns])?;
    expect_shape::<f32>(OP, "mean", io.mean, &[rows])?;
    expect_shape::<f32>(OP, "rstd", io.rstd, &[rows])?;
    expect_shape::<f32>(OP, "dy", io.dy, &[rows, columns])?;
    expect_shape::<f32>(OP, "dx", io.dx, &[rows, columns])?;
    expect_shape::<f32>(OP, "dweight", io.dweight, &[columns])?;
    expect_shape::<f32>(OP, "dbias", io.dbias, &[columns])?;
    let scratch = layer_norm_partials_len(rows, columns);
    expect_scratch(OP, "partials", io.partials, scratch)?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.weight),
        Binding::read(6, io.rstd),
        Binding::read(7, io.dy),
        Binding::write(8, io.dx),
        Binding::read(13, io.mean),
    ];
    let norm = sizes.norm();
    let elements = norm.elements();
    let adds = usize::from(input == InputGradient::Add);
    let pass = Pass {
        label: "nn.layer_norm_backward",
        entry: "norm_backward",
        accumulate: input == InputGradient::Add,
        cost: Cost {
            flops: 14 * elements as u64,
            bytes: 4 * ((3 + adds) * elements + 2 * rows + columns) as u64,
        },
    };
    norm.push_rows(plan, &pass, &bindings, io.counts)?;
    let inputs = [
        Binding::read(2, io.x),
        Binding::read(6, io.rstd),
        Binding::read(7, io.dy),
        Binding::read(13, io.mean),
    ];
    let gradients = [Binding::write(10, io.dweight), Binding::write(14, io.dbias)];
    norm.push_parameter_gradients(plan, &inputs, io.partials, &gradients, io.counts)
}
