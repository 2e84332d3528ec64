//! Kernels of recorded plans, replayed.

use std::ops::Range;

use anyhow::Result;
use prefgrad::{Gpu, Plan, Tensor};

use crate::digest::Digest;
use crate::measure::Work;

/// Replays in one submission, at most: devices may end what runs for long.
const REPLAYS: usize = 16;

type Read = dyn Fn(&Gpu) -> Result<Vec<Digest>>;

/// Some dispatches of some plans, one after another.
pub struct Replay {
    gpu: Gpu,
    parts: Vec<(Plan, Range<usize>)>,
    /// What a replay overwrites and needs again: copied from the first to the second beforehand.
    restored: Option<(Tensor, Tensor)>,
    read: Box<Read>,
}

impl Replay {
    /// Replays parts of plans; `read` reads what they computed.
    pub fn new(
        gpu: &Gpu,
        parts: Vec<(Plan, Range<usize>)>,
        read: impl Fn(&Gpu) -> Result<Vec<Digest>> + 'static,
    ) -> Self {
        Self {
            gpu: gpu.clone(),
            parts,
            restored: None,
            read: Box::new(read),
        }
    }

    /// Replays a whole plan.
    pub fn whole(
        gpu: &Gpu,
        plan: Plan,
        read: impl Fn(&Gpu) -> Result<Vec<Digest>> + 'static,
    ) -> Self {
        let all = 0..plan.len();
        Self::new(gpu, vec![(plan, all)], read)
    }

    /// Copies `from` to `to` before each replay.
    pub fn restoring(self, from: Tensor, to: Tensor) -> Self {
        Self {
            restored: Some((from, to)),
            ..self
        }
    }

    fn submit(&self, times: usize) {
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        for _ in 0..times {
            if let Some((from, to)) = &self.restored {
                encoder.copy_buffer_to_buffer(
                    from.buffer(),
                    from.offset_bytes(),
                    to.buffer(),
                    to.offset_bytes(),
                    from.bytes(),
                );
            }
            for (plan, range) in &self.parts {
                plan.commands_range(&mut encoder, range.clone());
            }
        }
        self.gpu.queue().submit([encoder.finish()]);
    }
}

impl Work for Replay {
    fn run(&mut self, times: usize) -> Result<()> {
        let mut left = times;
        while left > 0 {
            let now = left.min(REPLAYS);
            self.submit(now);
            left -= now;
        }
        Ok(self.gpu.wait()?)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        (self.read)(&self.gpu)
    }
}

/// Reads tensors of `f32` under the names by which they are compared.
pub fn tensors(
    named: Vec<(&'static str, Tensor)>,
) -> impl Fn(&Gpu) -> Result<Vec<Digest>> + 'static {
    move |gpu| {
        let digest = |(name, tensor): &(&str, Tensor)| {
            let values: Vec<f32> = tensor.read(gpu)?;
            Ok(Digest::of(name, &values))
        };
        named.iter().map(digest).collect()
    }
}
