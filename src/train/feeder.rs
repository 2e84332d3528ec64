//! [`Feeder`]: the micro-batches of an update, from records in shuffled order.

use crate::Result;
use crate::data::{Batch, Capacity, DataOrder, PackOptions, Packer, TokenRecord};
use crate::model::METRIC_SLOTS;

/// A packed batch and the records in it.
pub(super) struct MicroBatch {
    pub batch: Batch,
    /// Indices of the records, in the batch's order.
    pub records: Vec<usize>,
}

/// Packs micro-batches, each with the next row of a ring of metrics.
pub(super) struct Feeder {
    capacity: Capacity,
    accumulation: usize,
    next_slot: usize,
}

impl Feeder {
    /// `accumulation` micro-batches an update, of at most `capacity`.
    pub fn new(capacity: Capacity, accumulation: usize) -> Self {
        Self {
            capacity,
            accumulation,
            next_slot: 0,
        }
    }

    /// The micro-batches of the next update, its loss a mean over all their weights: those of the
    /// pairs where batches have pairs, else those of the targets.
    ///
    /// # Errors
    ///
    /// As [`Packer::try_push`].
    pub fn next(
        &mut self,
        records: &[TokenRecord],
        order: &mut DataOrder,
        options: PackOptions,
    ) -> Result<Vec<MicroBatch>> {
        let mut packer = Packer::new(self.capacity, options);
        let mut fed = Vec::with_capacity(self.accumulation);
        for _ in 0..self.accumulation {
            let mut packed = Vec::new();
            // A small set of records is gone through once a micro-batch, not more.
            for _ in 0..records.len() {
                let Some(index) = order.peek() else {
                    break;
                };
                if !packer.try_push(&records[index])? {
                    break;
                }
                packed.push(index);
                order.next();
            }
            fed.push(MicroBatch {
                batch: packer.finish(0.0, 0.0, self.next_slot as u32),
                records: packed,
            });
            self.next_slot = (self.next_slot + 1) % METRIC_SLOTS;
        }
        let weight: f64 = fed.iter().map(|micro| weight(&micro.batch, options)).sum();
        let scale = if weight > 0.0 {
            (1.0 / weight) as f32
        } else {
            0.0
        };
        for micro in &mut fed {
            micro.batch.counts.pair_scale = scale;
            micro.batch.counts.target_scale = scale;
        }
        Ok(fed)
    }
}

fn weight(batch: &Batch, options: PackOptions) -> f64 {
    if options.with_pairs {
        batch.pairs.iter().map(|p| f64::from(p.weight)).sum()
    } else {
        batch.targets.iter().map(|t| f64::from(t.weight)).sum()
    }
}
