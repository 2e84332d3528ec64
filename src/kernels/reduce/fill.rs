//! One value everywhere: `shaders/reduce/fill.wgsl`.

use crate::Result;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{DISPATCH, columns_lib, shader, to_u32};

/// The kernel's text.
pub const SHADER: Shader = shader!("reduce.fill", "reduce/fill.wgsl", Core);

const OP: &str = "reduce.fill";
const ITEMS_A_WORKGROUP: usize = 1024;
/// The largest offset alignment that a device may ask for, in elements.
const ALIGNMENT: usize = 64;

device_struct! {
    struct FillParams {
        count: u32,
        value: u32,
        pad: [u32; 2],
    }
}

/// Appends `out[i] = value` for every element of an f32 tensor, which may be larger than one
/// binding: it then takes several dispatches.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for another element type, and what [`Plan::push`]
/// refuses.
pub fn fill(plan: &mut Plan, out: &Tensor, value: f32) -> Result<()> {
    let limit = plan.gpu().limits().max_storage_buffer_binding_size;
    fill_within(plan, out, value, limit)
}

/// [`fill`] in dispatches that bind at most `limit` bytes, at least 256, each.
///
/// # Errors
///
/// As [`fill`].
pub fn fill_within(plan: &mut Plan, out: &Tensor, value: f32, limit: u64) -> Result<()> {
    out.expect_element::<f32>()?;
    let fitting = usize::try_from(limit / 4).unwrap_or(usize::MAX);
    let step = (fitting / ALIGNMENT).max(1) * ALIGNMENT;
    for first in (0..out.len()).step_by(step) {
        let len = step.min(out.len() - first);
        let window = out.window(out.label(), first, &[len])?;
        push(plan, &window, value)?;
    }
    Ok(())
}

fn push(plan: &mut Plan, out: &Tensor, value: f32) -> Result<()> {
    let len = out.len();
    let params = FillParams {
        count: to_u32(OP, len)?,
        value: value.to_bits(),
        pad: [0; 2],
    };
    let (access, groups) = columns_lib(len);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "fill",
            libs: &[DISPATCH, access, super::bits_lib(len)],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &[Binding::write(2, out)],
        workgroups: groups.div_ceil(ITEMS_A_WORKGROUP) as u64,
        cost: Cost {
            flops: 0,
            bytes: out.bytes(),
        },
    })
}
