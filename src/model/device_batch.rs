//! [`DeviceBatch`]: the tensors that a batch is written into before each replay.

use crate::data::{
    Answer, Batch, Capacity, Counts, Pair, RowList, RowLists, Segment, Target, Tile,
};
use crate::gpu::{Gpu, Tensor};
use crate::{Error, Result};

/// Lists of rows and the rows themselves, on the device.
pub struct DeviceLists {
    /// One entry a list.
    pub lists: Tensor,
    /// The rows of all lists.
    pub rows: Tensor,
}

impl DeviceLists {
    fn new(gpu: &Gpu, label: &str, lists: usize, rows: usize) -> Result<Self> {
        Ok(Self {
            lists: Tensor::zeros::<RowList>(gpu, &format!("{label} lists"), &[lists])?,
            rows: Tensor::zeros::<u32>(gpu, &format!("{label} rows"), &[rows])?,
        })
    }

    fn write(&self, gpu: &Gpu, lists: &RowLists) -> Result<()> {
        self.lists.write(gpu, &lists.lists)?;
        self.rows.write(gpu, &lists.rows)
    }
}

/// A batch's tensors, made once for a capacity.
pub struct DeviceBatch {
    /// What fits.
    pub capacity: Capacity,
    /// The live sizes and scales.
    pub counts: Tensor,
    /// Token ids (T).
    pub tokens: Tensor,
    /// Positions (T).
    pub positions: Tensor,
    /// Segments (S).
    pub segments: Tensor,
    /// Attention work items.
    pub tiles: Tensor,
    /// Answers (A).
    pub answers: Tensor,
    /// Pairs (P).
    pub pairs: Tensor,
    /// Next-token targets (N).
    pub targets: Tensor,
    /// Rows by token id.
    pub token_lists: DeviceLists,
    /// Rows by position.
    pub position_lists: DeviceLists,
    /// Answers by pooled row.
    pub pooled_lists: DeviceLists,
    /// Targets by row.
    pub target_lists: DeviceLists,
    /// Targets by answer.
    pub answer_lists: DeviceLists,
}

impl DeviceBatch {
    /// Allocates the tensors for batches of at most `capacity`.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn new(gpu: &Gpu, capacity: Capacity) -> Result<Self> {
        let tokens = capacity.tokens;
        Ok(Self {
            capacity,
            counts: Tensor::zeros::<Counts>(gpu, "counts", &[1])?,
            tokens: Tensor::zeros::<u32>(gpu, "tokens", &[tokens])?,
            positions: Tensor::zeros::<u32>(gpu, "positions", &[tokens])?,
            segments: Tensor::zeros::<Segment>(gpu, "segments", &[capacity.segments])?,
            tiles: Tensor::zeros::<Tile>(gpu, "tiles", &[capacity.tiles()])?,
            answers: Tensor::zeros::<Answer>(gpu, "answers", &[capacity.answers])?,
            pairs: Tensor::zeros::<Pair>(gpu, "pairs", &[capacity.pairs])?,
            targets: Tensor::zeros::<Target>(gpu, "targets", &[capacity.targets])?,
            token_lists: DeviceLists::new(gpu, "token", tokens, tokens)?,
            position_lists: DeviceLists::new(gpu, "position", tokens, tokens)?,
            pooled_lists: DeviceLists::new(gpu, "pooled", capacity.answers, capacity.answers)?,
            target_lists: DeviceLists::new(gpu, "target", capacity.targets, capacity.targets)?,
            answer_lists: DeviceLists::new(gpu, "answer", capacity.answers, capacity.targets)?,
        })
    }

    /// Queues the writes of a batch; they land before the next submission.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if the batch is larger than the capacity.
    pub fn upload(&self, gpu: &Gpu, batch: &Batch) -> Result<()> {
        let fits = [
            ("tokens", batch.tokens.len(), self.capacity.tokens),
            ("segments", batch.segments.len(), self.capacity.segments),
            ("answers", batch.answers.len(), self.capacity.answers),
            ("pairs", batch.pairs.len(), self.capacity.pairs),
            ("targets", batch.targets.len(), self.capacity.targets),
        ];
        for (what, len, capacity) in fits {
            if len > capacity {
                return Err(Error::shape(
                    "batch",
                    format!("{len} {what}, the plan was built for {capacity}"),
                ));
            }
        }
        self.tokens.write(gpu, &batch.tokens)?;
        self.positions.write(gpu, &batch.positions)?;
        self.segments.write(gpu, &batch.segments)?;
        self.tiles.write(gpu, &batch.tiles)?;
        self.answers.write(gpu, &batch.answers)?;
        self.pairs.write(gpu, &batch.pairs)?;
        self.targets.write(gpu, &batch.targets)?;
        self.token_lists.write(gpu, &batch.token_lists)?;
        self.position_lists.write(gpu, &batch.position_lists)?;
        self.pooled_lists.write(gpu, &batch.pooled_lists)?;
        self.target_lists.write(gpu, &batch.target_lists)?;
        self.answer_lists.write(gpu, &batch.answer_lists)?;
        self.counts.write(gpu, &[batch.counts])
    }
}
