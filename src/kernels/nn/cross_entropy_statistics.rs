//! Figures over all targets: `shaders/nn/cross_entropy_statistics.wgsl`.

use crate::Result;
use crate::data::batch::Target;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::metrics::metrics_slots;
use crate::kernels::{Count, NUMERICS, counts_lib, expect_shape, shader, to_u32};

/// The kernel's text.
pub const SHADER: Shader = shader!(
    "nn.cross_entropy_statistics",
    "nn/cross_entropy_statistics.wgsl",
    Core
);

const OP: &str = "nn.cross_entropy_statistics";

/// The tensors of [`cross_entropy_statistics`].
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyStatisticsIo<'a> {
    /// (N), of [`Target`].
    pub targets: &'a Tensor,
    /// (N), written by [`cross_entropy`](super::cross_entropy::cross_entropy).
    pub logprobs: &'a Tensor,
    /// (slots, [`METRICS`](crate::kernels::METRICS)): one row is written, that of the counts'
    /// `slot` (row 0 without).
    pub metrics: &'a Tensor,
    /// The batch's counts: how many targets are live, `target_scale` and `slot`.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct CrossEntropyStatisticsParams {
        targets: u32,
        targets_count: u32,
        slots: u32,
        target_scale: f32,
    }
}

/// Appends the figures over all targets as one row of metrics: `target_scale Σ -weight logprob`,
/// the number of targets, `Σ logprob`, `Σ weight`, 0, 0, how many log-probabilities are not
/// finite, 0.
///
/// `target_scale` serves where there are no counts. Sums are in `f32` in a fixed order.
///
/// # Errors
///
/// [`Error::Shape`](crate::Error::Shape) for tensors that do not fit, and what [`Plan::push`]
/// refuses.
pub fn cross_entropy_statistics(
    plan: &mut Plan,
    io: &CrossEntropyStatisticsIo<'_>,
    target_scale: f32,
) -> Result<()> {
    let targets = io.targets.len();
    expect_shape::<Target>(OP, "targets", io.targets, &[targets])?;
    expect_shape::<f32>(OP, "logprobs", io.logprobs, &[targets])?;
    let params = CrossEntropyStatisticsParams {
        targets: to_u32(OP, targets)?,
        targets_count: Count::Targets as u32,
        slots: metrics_slots(OP, io.metrics)?,
        target_scale,
    };
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.targets),
        Binding::read(3, io.logprobs),
        Binding::write(4, io.metrics),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "cross_entropy_statistics",
            libs: &[live, NUMERICS],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: 1,
        cost: Cost {
            flops: 4 * targets as u64,
            bytes: 20 * targets as u64,
        },
    })
}
