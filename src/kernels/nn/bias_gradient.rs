//! Sums over rows, the gradient of a bias: `shaders/nn/bias_gradient.wgsl`.

use crate::Result;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{
    CHUNK_LANES, CHUNK_ROWS, CHUNK_SUMS, DISPATCH, Size, chunk_sum_columns, chunk_sum_lanes,
    columns_lib, expect_scratch, expect_shape, live_lib, shader, to_u32,
};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.bias_gradient", "nn/bias_gradient.wgsl", Core);

const OP: &str = "nn.bias_gradient";
const OPERANDS: [&Operand; 1] = [operand!("dy", 2, "Columns")];
const THREADS: usize = 64;

/// The tensors of [`bias_gradient`].
#[derive(Debug, Clone, Copy)]
pub struct BiasGradientIo<'a> {
    /// (rows, N): gradient of what the bias was added to.
    pub dy: &'a Tensor,
    /// (N): gradient of the bias, added to.
    pub dbias: &'a Tensor,
    /// Scratch of at least [`bias_gradient_partials_len`] values.
    pub partials: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// Values of scratch that [`bias_gradient`] needs.
pub fn bias_gradient_partials_len(rows: usize, columns: usize) -> usize {
    rows.div_ceil(CHUNK_ROWS) * columns
}

device_struct! {
    struct BiasGradientParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        pad: u32,
    }
}

/// Appends `dbias[n] += Σ_t dy[t, n]` over the live rows: two dispatches.
///
/// The order of the sum depends on nothing but the number of live rows; its blocks are short
/// enough that a million values of mixed sign keep an error below 1e-5 of the result.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for shapes that do not agree, and what [`Plan::push`]
/// refuses.
pub fn bias_gradient(
    plan: &mut Plan,
    io: &BiasGradientIo<'_>,
    rows: Size,
    columns: usize,
) -> Result<()> {
    let scratch = bias_gradient_partials_len(rows.capacity, columns);
    expect_shape::<f32>(OP, "dy", io.dy, &[rows.capacity, columns])?;
    expect_shape::<f32>(OP, "dbias", io.dbias, &[columns])?;
    expect_scratch(OP, "partials", io.partials, scratch)?;
    to_u32(OP, io.dy.len())?;
    let params = BiasGradientParams {
        rows: rows.capacity_u32(OP)?,
        rows_count: rows.field(),
        columns: to_u32(OP, columns)?,
        pad: 0,
    };
    let (live, counts) = live_lib(OP, &[rows], io.counts)?;
    let (access, groups) = columns_lib(columns);
    let mut bindings = vec![Binding::read(2, io.dy), Binding::write(3, io.partials)];
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < columns);
    libs.extend([DISPATCH, live, access, CHUNK_SUMS, CHUNK_LANES]);
    let consts = [("SUM_LANES", Const::U32(chunk_sum_lanes(plan.gpu())))];
    let variant = |entry| Variant {
        entry,
        libs: &libs,
        consts: &consts,
    };
    plan.push(&Dispatch {
        label: "nn.bias_gradient_chunks",
        shader: &SHADER,
        variant: variant("bias_gradient_chunks"),
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (rows.capacity.div_ceil(CHUNK_ROWS) * groups).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: io.dy.len() as u64,
            bytes: 4 * (io.dy.len() + scratch) as u64,
        },
    })?;
    let mut bindings = vec![Binding::write(3, io.partials), Binding::write(4, io.dbias)];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: "nn.bias_gradient_total",
        shader: &SHADER,
        variant: variant("bias_gradient_total"),
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: groups.div_ceil(chunk_sum_columns(plan.gpu())) as u64,
        cost: Cost {
            flops: scratch as u64,
            bytes: 4 * (scratch + 2 * columns) as u64,
        },
    })
}
