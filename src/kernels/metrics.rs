//! The ring of metrics: a row of figures a batch, read back by the host once in a while.

use super::{expect_shape, to_u32};
use crate::gpu::Tensor;
use crate::{Error, Result};

/// Figures in a row of the ring of metrics.
pub const METRICS: usize = 8;

/// The number of rows of a ring of metrics, (slots, [`METRICS`]).
pub(crate) fn metrics_slots(op: &'static str, metrics: &Tensor) -> Result<u32> {
    let slots = metrics.len() / METRICS;
    expect_shape::<f32>(op, "metrics", metrics, &[slots, METRICS])?;
    if slots == 0 {
        return Err(Error::shape(op, "the ring of metrics has no rows"));
    }
    to_u32(op, slots)
}
