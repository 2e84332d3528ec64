//! The global gradient norm: `shaders/optim/grad_norm.wgsl`.

use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::operand::{Operand, bind_operands, operand, windows};
use crate::kernels::{DISPATCH, NUMERICS, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Both stages.
pub const SHADER: Shader = shader!("optim.grad_norm", "optim/grad_norm.wgsl", Core);

/// Elements that one workgroup sums.
const CHUNK: usize = 256 * 16 * 4;
const OPERANDS: [&Operand; 1] = [operand!("grads", 2)];
const PARTIALS: &str = "optim.grad_norm_partials";
const FINISH: &str = "optim.grad_norm_finish";

/// The tensors of [`grad_norm`].
#[derive(Debug, Clone, Copy)]
pub struct GradNormIo<'a> {
    /// The gradient, in as many pieces as it has; each a multiple of 4 long.
    pub grads: &'a [&'a Tensor],
    /// (R, 4), scratch: R is the sum of [`partial_rows`] over the pieces.
    pub partials: &'a Tensor,
    /// (4): `norm`, clip `coefficient`, 1 if not finite else 0, steps skipped so far.
    pub stats: &'a Tensor,
}

device_struct! {
    struct GradNormParams {
        fours: u32,
        first_partial: u32,
        partials: u32,
        max_norm: f32,
    }
}

/// Rows of partial sums that a piece of `len` elements needs.
pub fn partial_rows(len: usize) -> usize {
    len.div_ceil(CHUNK)
}

/// Appends the norm over all pieces and the factor `min(1, max_norm / (norm + 1e-6))`.
///
/// `stats` becomes: the norm of the finite elements, the factor, whether anything (or the norm
/// itself) is not finite, and the number of steps for which that was so, which only ever grows.
/// Right for norms up to the largest `f32`; elements under 1e-19 count as zero. Sums run in a
/// fixed order. Without `max_norm` the factor is 1.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, a length that is no multiple of 4 or a
/// `max_norm` that is not above zero, and what [`Plan::push`] refuses.
pub fn grad_norm(plan: &mut Plan, io: &GradNormIo<'_>, max_norm: Option<f32>) -> Result<()> {
    let max_norm = max_norm.unwrap_or(f32::MAX);
    if !max_norm.is_finite() || max_norm <= 0.0 {
        return Err(Error::shape(FINISH, format!("max_norm is {max_norm}")));
    }
    let rows: usize = io.grads.iter().map(|grads| partial_rows(grads.len())).sum();
    expect_shape::<f32>(PARTIALS, "partials", io.partials, &[rows, 4])?;
    expect_shape::<f32>(FINISH, "stats", io.stats, &[4])?;
    for grads in io.grads {
        expect_fours(PARTIALS, grads)?;
    }
    let mut params = GradNormParams {
        fours: 0,
        first_partial: 0,
        partials: to_u32(FINISH, rows)?,
        max_norm,
    };
    for grads in io.grads {
        for window in windows(plan.gpu(), grads.len()) {
            let part = grads.window(grads.label(), window.start, &[window.len()])?;
            params.fours = to_u32(PARTIALS, part.len() / 4)?;
            push_partials(plan, &part, io.partials, params)?;
            params.first_partial += to_u32(PARTIALS, partial_rows(part.len()))?;
        }
    }
    let libs = [&OPERANDS[0].buffer, DISPATCH, NUMERICS];
    plan.push(&Dispatch {
        label: FINISH,
        shader: &SHADER,
        variant: Variant {
            entry: "grad_norm_finish",
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &[Binding::read(4, io.partials), Binding::write(5, io.stats)],
        workgroups: 1,
        cost: Cost {
            flops: 4 * rows as u64,
            bytes: 16 * rows as u64,
        },
    })
}

fn push_partials(
    plan: &mut Plan,
    grads: &Tensor,
    partials: &Tensor,
    params: GradNormParams,
) -> Result<()> {
    let mut bindings = vec![Binding::read(2, grads), Binding::write(3, partials)];
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, true);
    libs.extend([DISPATCH, NUMERICS]);
    plan.push(&Dispatch {
        label: PARTIALS,
        shader: &SHADER,
        variant: Variant {
            entry: "grad_norm_partials",
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: partial_rows(grads.len()) as u64,
        cost: Cost {
            flops: 2 * grads.len() as u64,
            bytes: 4 * grads.len() as u64,
        },
    })
}

/// Checks for `f32` in a multiple of 4, whatever the shape.
pub(super) fn expect_fours(op: &'static str, tensor: &Tensor) -> Result<()> {
    tensor.expect_element::<f32>()?;
    if tensor.len().is_multiple_of(4) {
        return Ok(());
    }
    let (label, len) = (tensor.label(), tensor.len());
    Err(Error::shape(
        op,
        format!("`{label}` has {len} elements: pad it to a multiple of 4"),
    ))
}
