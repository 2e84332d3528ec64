//! RMSNorm of query and key heads: `shaders/nn/qk_norm.wgsl`.

use super::attention::Heads;
use crate::Result;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{
    CHUNK_SUMS, DISPATCH, Size, columns_lib, expect_scratch, expect_shape, live_lib, shader, to_u32,
};

/// Forward, and the three entry points of the backward.
pub const SHADER: Shader = shader!("nn.qk_norm", "nn/qk_norm.wgsl", Core);

const OP: &str = "nn.qk_norm";
/// Heads whose gradients of a weight are summed by one workgroup.
const CHUNK_HEADS: usize = 256;
const OPERANDS: [&Operand; 5] = [
    operand!("x", 2, "Columns"),
    operand!("query_weight", 3, "Columns"),
    operand!("key_weight", 4, "Columns"),
    operand!("dy", 6, "Columns"),
    operand!("dqkv", 7, before 11, "Columns"),
];
const THREADS: usize = 64;

/// Sizes of a norm of query and key heads.
#[derive(Debug, Clone, Copy)]
pub struct QkNormSizes {
    /// Rows.
    pub rows: Size,
    /// The heads.
    pub heads: Heads,
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// The tensors of [`qk_norm_forward`].
#[derive(Debug, Clone, Copy)]
pub struct QkNormIo<'a> {
    /// (rows, (H + 2G) D): query heads, then key heads, then value heads.
    pub x: &'a Tensor,
    /// (D)
    pub query_weight: &'a Tensor,
    /// (D)
    pub key_weight: &'a Tensor,
    /// (rows, (H + 2G) D), written.
    pub y: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`qk_norm_backward`].
#[derive(Debug, Clone, Copy)]
pub struct QkNormBackwardIo<'a> {
    /// (rows, (H + 2G) D): the forward's input.
    pub x: &'a Tensor,
    /// (D)
    pub query_weight: &'a Tensor,
    /// (D)
    pub key_weight: &'a Tensor,
    /// (rows, (H + 2G) D): gradient of y before, of x after; value columns are not touched.
    pub dqkv: &'a Tensor,
    /// (D): gradient of `query_weight`, added to.
    pub dquery_weight: &'a Tensor,
    /// (D): gradient of `key_weight`, added to.
    pub dkey_weight: &'a Tensor,
    /// Scratch of at least [`qk_norm_partials_len`] values.
    pub partials: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// Values of scratch that [`qk_norm_backward`] needs.
pub fn qk_norm_partials_len(rows: usize, heads: Heads) -> usize {
    chunks(rows, heads) * heads.width
}

/// Chunks of query heads and of key heads.
fn chunks(rows: usize, heads: Heads) -> usize {
    let of = |heads: usize| (rows * heads).div_ceil(CHUNK_HEADS);
    of(heads.query) + of(heads.key_value)
}

device_struct! {
    struct QkNormParams {
        rows: u32,
        rows_count: u32,
        heads: u32,
        kv_heads: u32,
        width: u32,
        eps: f32,
    }
}

impl QkNormSizes {
    /// The parameters, once the sizes are known to be supported.
    fn params(&self) -> Result<QkNormParams> {
        self.heads.check(OP)?;
        to_u32(
            OP,
            self.rows.capacity.saturating_mul(self.heads.qkv_width()),
        )?;
        Ok(QkNormParams {
            rows: self.rows.capacity_u32(OP)?,
            rows_count: self.rows.field(),
            heads: to_u32(OP, self.heads.query)?,
            kv_heads: to_u32(OP, self.heads.key_value)?,
            width: to_u32(OP, self.heads.width)?,
            eps: self.eps,
        })
    }

    /// Values of `heads` heads of each row.
    fn elements(&self, heads: usize) -> usize {
        self.rows.capacity * heads * self.heads.width
    }

    fn expect_rows(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let shape = [self.rows.capacity, self.heads.qkv_width()];
        expect_shape::<f32>(OP, name, tensor, &shape)
    }

    fn expect_width(&self, name: &str, tensor: &Tensor) -> Result<()> {
        expect_shape::<f32>(OP, name, tensor, &[self.heads.width])
    }
}

/// Appends `y = x rstd weight` for each query head and each key head of each row, with
/// `rstd = 1 / sqrt(mean(x²) + eps)` of the head and the weight of its kind; value heads are copied.
///
/// Rows past the live ones are not written. Squares are summed in `f32`, which overflows for values
/// above about 1e17.
///
/// RMSNorm: Zhang and Sennrich 2019, arXiv 1910.07467, equation 4; of queries and keys: Yang et al.
/// 2025 (Qwen3), arXiv 2505.09388, section 2.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for heads that attention does not support and for shapes
/// that do not agree, and what [`Plan::push`] refuses.
pub fn qk_norm_forward(plan: &mut Plan, io: &QkNormIo<'_>, sizes: &QkNormSizes) -> Result<()> {
    let params = sizes.params()?;
    sizes.expect_rows("x", io.x)?;
    sizes.expect_width("query_weight", io.query_weight)?;
    sizes.expect_width("key_weight", io.key_weight)?;
    sizes.expect_rows("y", io.y)?;
    let heads = sizes.heads;
    let all = heads.query + 2 * heads.key_value;
    let pass = Pass {
        label: "nn.qk_norm_forward",
        entry: "qk_norm_forward",
        workgroups: (sizes.rows.capacity * all).div_ceil(THREADS),
        cost: Cost {
            flops: 4 * sizes.elements(heads.query + heads.key_value) as u64,
            bytes: 4 * (2 * sizes.elements(all) + 2 * heads.width) as u64,
        },
    };
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.query_weight),
        Binding::read(4, io.key_weight),
        Binding::write(5, io.y),
    ];
    push(plan, sizes, &params, &pass, &bindings, io.counts)
}

/// Appends the backward of [`qk_norm_forward`]: three dispatches, the last of which turns `dqkv`
/// from the gradient of y into that of x.
///
/// With `n = x rstd` and `g = dy weight`, in each query or key head
/// `dx = rstd (g - n mean(g n))`; each weight's gradient is added `Σ dy n` over rows and heads, in
/// an order that depends on nothing but the number of live rows. `rstd` is computed anew.
///
/// # Errors
///
/// As [`qk_norm_forward`].
pub fn qk_norm_backward(
    plan: &mut Plan,
    io: &QkNormBackwardIo<'_>,
    sizes: &QkNormSizes,
) -> Result<()> {
    let params = sizes.params()?;
    sizes.expect_rows("x", io.x)?;
    sizes.expect_width("query_weight", io.query_weight)?;
    sizes.expect_width("key_weight", io.key_weight)?;
    sizes.expect_rows("dqkv", io.dqkv)?;
    sizes.expect_width("dquery_weight", io.dquery_weight)?;
    sizes.expect_width("dkey_weight", io.dkey_weight)?;
    let scratch = qk_norm_partials_len(sizes.rows.capacity, sizes.heads);
    expect_scratch(OP, "partials", io.partials, scratch)?;
    push_weight_gradients(plan, io, sizes, &params)?;
    let heads = sizes.heads.query + sizes.heads.key_value;
    let elements = sizes.elements(heads);
    let pass = Pass {
        label: "nn.qk_norm_backward",
        entry: "qk_norm_backward",
        workgroups: (sizes.rows.capacity * heads).div_ceil(THREADS),
        cost: Cost {
            flops: 11 * elements as u64,
            bytes: 4 * (3 * elements + 2 * sizes.heads.width) as u64,
        },
    };
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(3, io.query_weight),
        Binding::read(4, io.key_weight),
        Binding::write(7, io.dqkv),
    ];
    push(plan, sizes, &params, &pass, &bindings, io.counts)
}

fn push_weight_gradients(
    plan: &mut Plan,
    io: &QkNormBackwardIo<'_>,
    sizes: &QkNormSizes,
    params: &QkNormParams,
) -> Result<()> {
    let heads = sizes.heads;
    let elements = sizes.elements(heads.query + heads.key_value);
    let scratch = qk_norm_partials_len(sizes.rows.capacity, heads);
    let pass = Pass {
        label: "nn.qk_norm_backward_chunks",
        entry: "qk_norm_chunks",
        workgroups: chunks(sizes.rows.capacity, heads),
        cost: Cost {
            flops: 5 * elements as u64,
            bytes: 4 * (2 * elements + scratch) as u64,
        },
    };
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(6, io.dqkv),
        Binding::write(8, io.partials),
    ];
    push(plan, sizes, params, &pass, &bindings, io.counts)?;
    let (_, columns) = columns_lib(heads.width);
    let pass = Pass {
        label: "nn.qk_norm_backward_total",
        entry: "qk_norm_total",
        workgroups: (2 * columns).div_ceil(THREADS),
        cost: Cost {
            flops: scratch as u64,
            bytes: 4 * (scratch + 4 * heads.width) as u64,
        },
    };
    let bindings = [
        Binding::write(8, io.partials),
        Binding::write(9, io.dquery_weight),
        Binding::write(10, io.dkey_weight),
    ];
    push(plan, sizes, params, &pass, &bindings, io.counts)
}

/// One dispatch.
struct Pass {
    label: &'static str,
    entry: &'static str,
    workgroups: usize,
    cost: Cost,
}

fn push(
    plan: &mut Plan,
    sizes: &QkNormSizes,
    params: &QkNormParams,
    pass: &Pass,
    bindings: &[Binding<'_>],
    counts: Option<&Tensor>,
) -> Result<()> {
    let (live, counts) = live_lib(OP, &[sizes.rows], counts)?;
    let width = sizes.heads.width;
    let (access, groups) = columns_lib(width);
    let mut bindings = bindings.to_vec();
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < width);
    libs.extend([DISPATCH, live, access, CHUNK_SUMS]);
    plan.push(&Dispatch {
        label: pass.label,
        shader: &SHADER,
        variant: Variant {
            entry: pass.entry,
            libs: &libs,
            consts: &[],
        },
        params: Params::of(params),
        bindings: &bindings,
        workgroups: pass.workgroups as u64,
        cost: pass.cost,
    })
}
