//! Clearing the rows of a batch: `shaders/nn/zero_rows.wgsl`.

use crate::Result;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, shader, to_u32};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.zero_rows", "nn/zero_rows.wgsl", Core);

const OP: &str = "nn.zero_rows";

device_struct! {
    struct ZeroRowsParams {
        rows: u32,
        rows_count: u32,
        width: u32,
    }
}

/// Appends `out[t, :] = 0` for the live tokens `t` of `out` (T, C); for all without counts.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for a tensor that is not a matrix of `f32`, and what
/// [`Plan::push`] refuses.
pub fn zero_rows(plan: &mut Plan, out: &Tensor, counts: Option<&Tensor>) -> Result<()> {
    let (rows, width) = match out.shape() {
        [rows, width] => (*rows, *width),
        _ => (out.len(), 1),
    };
    expect_shape::<f32>(OP, "out", out, &[rows, width])?;
    zero_words(plan, out, [rows, width], Count::Tokens, counts)
}

/// [`zero_rows`] of a tensor whose `rows` elements, of which `field` counts the live ones, have
/// `width` words each.
pub(crate) fn zero_words(
    plan: &mut Plan,
    out: &Tensor,
    [rows, width]: [usize; 2],
    field: Count,
    counts: Option<&Tensor>,
) -> Result<()> {
    let params = ZeroRowsParams {
        rows: to_u32(OP, rows)?,
        rows_count: field as u32,
        width: to_u32(OP, width)?,
    };
    to_u32(OP, rows * width)?;
    let (live, counts) = counts_lib(OP, counts)?;
    let mut bindings = vec![Binding::write(2, out)];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "zero_rows",
            libs: &[DISPATCH, live],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (rows * width).div_ceil(1024) as u64,
        cost: Cost {
            flops: 0,
            bytes: 4 * (rows * width) as u64,
        },
    })
}
