//! Faults of drivers that give wrong results without an error.

use crate::Result;
use crate::gpu::{
    Binding, Capability, Cost, Dispatch, Gpu, Params, Plan, Shader, Tensor, Variant, device_struct,
};

/// Counts to a number that the shader reads, so that no compiler can know it.
const COUNT: Shader = Shader::new(
    "check.loop_count",
    "\
struct Params {
    iterations: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> counted: array<u32>;

@compute @workgroup_size(1)
fn loop_count() {
    var count = 0u;
    for (var i = 0u; i < params.iterations; i += 1u) {
        count += i % 3u;
    }
    counted[0] = count;
}
",
    Capability::Core,
);

device_struct! {
    struct LoopCountParams {
        iterations: u32,
    }
}

/// Whether the driver leaves a loop of more than 65,535 iterations early and silently, as
/// lavapipe of Mesa 22.3 does. The crate's kernels stay clear of such loops.
///
/// # Errors
///
/// What the device reports.
pub fn ends_long_loops_early(gpu: &Gpu) -> Result<bool> {
    let iterations = 200_000u32;
    let counted = Tensor::zeros::<u32>(gpu, "counted", &[1])?;
    let mut plan = Plan::new(gpu);
    plan.push(&Dispatch {
        label: "check.loop_count",
        shader: &COUNT,
        variant: Variant {
            entry: "loop_count",
            libs: &[],
            consts: &[],
        },
        params: Params::of(&LoopCountParams { iterations }),
        bindings: &[Binding::write(2, &counted)],
        workgroups: 1,
        cost: Cost::default(),
    })?;
    plan.submit();
    let expected: u32 = (0..iterations).map(|i| i % 3).sum();
    Ok(counted.read::<u32>(gpu)? != [expected])
}
