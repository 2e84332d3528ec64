//! LayerNorm over rows: `shaders/nn/layer_norm.wgsl` and `layer_norm_subgroup.wgsl`.

use crate::Result;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::{
    CHUNK_ROWS, CHUNK_SUMS, DISPATCH, Size, columns_lib, expect_scratch, expect_shape, lib,
    live_lib, shader, to_u32,
};

/// The kernel's text with a workgroup a row, and the sums over rows.
pub const SHADER: Shader = shader!("nn.layer_norm", "nn/layer_norm.wgsl", Core);
/// The kernel's text with a subgroup a row.
pub const SHADER_SUBGROUP: Shader = shader!(
    "nn.layer_norm_subgroup",
    "nn/layer_norm_subgroup.wgsl",
    Subgroups
);

const OP: &str = "nn.layer_norm";
const ROW: &Lib = lib!("lib.layer_norm", "layer_norm.wgsl");
const SUBGROUP_ROWS: usize = 16;
const THREADS: usize = 64;

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

/// What happens to the gradient of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputGradient {
    /// `dx = ...`
    Overwrite,
    /// `dx += ...`, where the input has another consumer, such as a residual connection.
    Add,
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
    rows.div_ceil(CHUNK_ROWS) * 2 * columns
}

device_struct! {
    struct LayerNormParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        eps: f32,
    }
}

impl LayerNormSizes {
    fn params(&self) -> Result<LayerNormParams> {
        to_u32(OP, self.elements())?;
        Ok(LayerNormParams {
            rows: self.rows.capacity_u32(OP)?,
            rows_count: self.rows.field(),
            columns: to_u32(OP, self.columns)?,
            eps: self.eps,
        })
    }

    fn elements(&self) -> usize {
        self.rows.capacity.saturating_mul(self.columns)
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
    let params = sizes.params()?;
    expect_shape::<f32>(OP, "x", io.x, &[rows, columns])?;
    expect_shape::<f32>(OP, "weight", io.weight, &[columns])?;
    expect_shape::<f32>(OP, "bias", io.bias, &[columns])?;
    expect_shape::<f32>(OP, "y", io.y, &[rows, columns])?;
    expect_shape::<f32>(OP, "mean", io.mean, &[rows])?;
    expect_shape::<f32>(OP, "rstd", io.rstd, &[rows])?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.weight),
        Binding::read(4, io.bias),
        Binding::write(5, io.y),
        Binding::write(6, io.mean),
        Binding::write(7, io.rstd),
    ];
    let elements = sizes.elements();
    let rows = RowDispatch {
        label: "nn.layer_norm_forward",
        entry: "layer_norm_forward",
        accumulate: false,
        cost: Cost {
            flops: 9 * elements as u64,
            bytes: 4 * (2 * elements + 2 * rows + 2 * columns) as u64,
        },
    };
    rows.push(plan, sizes, &params, &bindings, io.counts)
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
    let params = sizes.params()?;
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
        Binding::read(8, io.mean),
        Binding::read(9, io.rstd),
        Binding::read(10, io.dy),
        Binding::write(11, io.dx),
    ];
    let elements = sizes.elements();
    let adds = usize::from(input == InputGradient::Add);
    let by_row = RowDispatch {
        label: "nn.layer_norm_backward",
        entry: "layer_norm_backward",
        accumulate: input == InputGradient::Add,
        cost: Cost {
            flops: 14 * elements as u64,
            bytes: 4 * ((3 + adds) * elements + 2 * rows + columns) as u64,
        },
    };
    by_row.push(plan, sizes, &params, &bindings, io.counts)?;
    push_parameter_gradients(plan, io, sizes, &params)
}

/// A dispatch that works on whole rows, by subgroups where the device has them.
struct RowDispatch {
    label: &'static str,
    entry: &'static str,
    accumulate: bool,
    cost: Cost,
}

impl RowDispatch {
    fn push(
        &self,
        plan: &mut Plan,
        sizes: &LayerNormSizes,
        params: &LayerNormParams,
        bindings: &[Binding<'_>],
        counts: Option<&Tensor>,
    ) -> Result<()> {
        let rows = sizes.rows.capacity;
        let (live, counts) = live_lib(OP, &[sizes.rows], counts)?;
        let (access, _) = columns_lib(sizes.columns);
        let mut bindings = bindings.to_vec();
        bindings.extend(counts);
        let libs: [&Lib; 5] = [DISPATCH, live, access, ROW, CHUNK_SUMS];
        let (shader, libs, workgroups) = if plan.gpu().subgroups() {
            (&SHADER_SUBGROUP, &libs[..4], rows.div_ceil(SUBGROUP_ROWS))
        } else {
            (&SHADER, &libs[..], rows)
        };
        plan.push(&Dispatch {
            label: self.label,
            shader,
            variant: Variant {
                entry: self.entry,
                libs,
                consts: &[("ACCUMULATE", Const::Bool(self.accumulate))],
            },
            params: Params::of(params),
            bindings: &bindings,
            workgroups: workgroups as u64,
            cost: self.cost,
        })
    }
}

fn push_parameter_gradients(
    plan: &mut Plan,
    io: &LayerNormBackwardIo<'_>,
    sizes: &LayerNormSizes,
    params: &LayerNormParams,
) -> Result<()> {
    let (live, counts) = live_lib(OP, &[sizes.rows], io.counts)?;
    let (access, groups) = columns_lib(sizes.columns);
    let (rows, elements) = (sizes.rows.capacity, sizes.elements());
    let chunks = rows.div_ceil(CHUNK_ROWS);
    let scratch = layer_norm_partials_len(rows, sizes.columns);
    let libs = [DISPATCH, live, access, ROW, CHUNK_SUMS];
    let variant = |entry| Variant {
        entry,
        libs: &libs,
        consts: &[("ACCUMULATE", Const::Bool(false))],
    };
    let mut bindings = vec![
        Binding::read(2, io.x),
        Binding::read(8, io.mean),
        Binding::read(9, io.rstd),
        Binding::read(10, io.dy),
        Binding::write(12, io.partials),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: "nn.layer_norm_backward_chunks",
        shader: &SHADER,
        variant: variant("layer_norm_chunks"),
        params: Params::of(params),
        bindings: &bindings,
        workgroups: (chunks * groups).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: 5 * elements as u64,
            bytes: 4 * (2 * elements + 2 * rows + scratch) as u64,
        },
    })?;
    let mut bindings = vec![
        Binding::write(12, io.partials),
        Binding::write(13, io.dweight),
        Binding::write(14, io.dbias),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: "nn.layer_norm_backward_total",
        shader: &SHADER,
        variant: variant("layer_norm_total"),
        params: Params::of(params),
        bindings: &bindings,
        workgroups: groups.div_ceil(THREADS) as u64,
        cost: Cost {
            flops: scratch as u64,
            bytes: 4 * (scratch + 4 * sizes.columns) as u64,
        },
    })
}
