//! [`Plan::profile`]: where a plan's time goes, from the device's own clock.

use std::fmt;

use super::tensor::map_for_reading;
use super::{Gpu, Plan};
use crate::{Error, Result};

/// All dispatches of one label together.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// The label.
    pub label: &'static str,
    /// How many dispatches.
    pub calls: usize,
    /// Milliseconds on the device.
    pub milliseconds: f64,
    /// Floating-point operations at full capacity.
    pub flops: u64,
    /// Bytes moved at full capacity.
    pub bytes: u64,
}

/// Time by label, longest first. Prints as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// A row a label.
    pub rows: Vec<ProfileRow>,
}

impl Profile {
    /// Milliseconds of all rows together.
    pub fn milliseconds(&self) -> f64 {
        self.rows.iter().map(|row| row.milliseconds).sum()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.milliseconds().max(f64::MIN_POSITIVE);
        writeln!(
            f,
            "{:<32} {:>6} {:>10} {:>7} {:>9} {:>8}",
            "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s"
        )?;
        for row in &self.rows {
            let seconds = (row.milliseconds / 1e3).max(f64::MIN_POSITIVE);
            writeln!(
                f,
                "{:<32} {:>6} {:>10.3} {:>6.1}% {:>9.2} {:>8.2}",
                row.label,
                row.calls,
                row.milliseconds,
                100.0 * row.milliseconds / total,
                row.flops as f64 / seconds / 1e9,
                row.bytes as f64 / seconds / 1e9
            )?;
        }
        write!(
            f,
            "{:<32} {:>6} {:>10.3}",
            "total",
            self.calls(),
            self.milliseconds()
        )
    }
}

impl Profile {
    fn calls(&self) -> usize {
        self.rows.iter().map(|row| row.calls).sum()
    }
}

impl Plan {
    /// Runs the plan once with a timestamp around every dispatch and sums by label.
    ///
    /// The first run of a plan includes the driver's compilation: run it once before.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where the device has no timestamps inside passes; as [`Plan::ready`].
    pub fn profile(&self) -> Result<Profile> {
        if !self.gpu().timestamps() {
            return Err(Error::Device {
                during: "profiling a plan".into(),
                detail: "the device was opened without TIMESTAMP_QUERY_INSIDE_PASSES".into(),
            });
        }
        self.ready()?;
        let mut rows: Vec<ProfileRow> = Vec::new();
        // A query set holds 4096 timestamps at most.
        for chunk in self.recorded().chunks(2048) {
            let ticks = time_dispatches(self.gpu(), chunk)?;
            for (dispatch, ns) in chunk.iter().zip(ticks) {
                let row = match rows.iter_mut().find(|row| row.label == dispatch.label) {
                    Some(row) => row,
                    None => {
                        rows.push(ProfileRow {
                            label: dispatch.label,
                            calls: 0,
                            milliseconds: 0.0,
                            flops: 0,
                            bytes: 0,
                        });
                        let last = rows.len() - 1;
                        &mut rows[last]
                    }
                };
                row.calls += 1;
                row.milliseconds += ns / 1e6;
                row.flops += dispatch.cost.flops;
                row.bytes += dispatch.cost.bytes;
            }
        }
        rows.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
        Ok(Profile { rows })
    }
}

/// Nanoseconds of each dispatch, with the copies it needs.
fn time_dispatches(gpu: &Gpu, dispatches: &[super::plan::Recorded]) -> Result<Vec<f64>> {
    let count = dispatches.len() as u32 + 1;
    let bytes = u64::from(count) * 8;
    let buffer = |label, usage| {
        gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    };
    let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("profile"),
        ty: wgpu::QueryType::Timestamp,
        count,
    });
    let resolved = buffer(
        "profile timestamps",
        wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
    );
    let staging = buffer(
        "profile readback",
        wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
    );
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let begin = |encoder: &mut wgpu::CommandEncoder| {
        encoder
            .begin_compute_pass(&Default::default())
            .forget_lifetime()
    };
    let mut pass = begin(&mut encoder);
    pass.write_timestamp(&queries, 0);
    for (index, dispatch) in dispatches.iter().enumerate() {
        if dispatch.is_staged() {
            drop(pass);
            dispatch.encode_stages(&mut encoder);
            pass = begin(&mut encoder);
        }
        dispatch.encode(&mut pass);
        pass.write_timestamp(&queries, index as u32 + 1);
    }
    drop(pass);
    encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
    encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
    gpu.queue().submit([encoder.finish()]);
    pollster::block_on(map_for_reading(gpu, &staging, "profile"))?;
    let view = staging
        .get_mapped_range(..)
        .map_err(|error| Error::Device {
            during: "reading timestamps".into(),
            detail: error.to_string(),
        })?;
    let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..]);
    let period = f64::from(gpu.queue().get_timestamp_period());
    Ok(ticks
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period)
        .collect())
}
