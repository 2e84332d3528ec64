//! The lists of each answer's targets, as kernels that walk along responses take them.

use crate::data::batch::RowList;
use crate::gpu::Tensor;
use crate::kernels::expect_shape;
use crate::{Error, Result};

/// Threads that share the entries of one list.
const THREADS: usize = 64;
/// Entries of one list that a thread passes, at most: some drivers leave loops after 65,535
/// iterations, and a kernel may pass twice.
const ENTRIES_A_THREAD: usize = 30_000;
/// Targets of a batch, at most, since any list might hold them all.
pub(super) const MAX_TARGETS: usize = THREADS * ENTRIES_A_THREAD;

/// Checks the lists and gives the number of answers and of targets.
pub(super) fn expect_lists(
    op: &'static str,
    answer_lists: &Tensor,
    answer_rows: &Tensor,
) -> Result<(usize, usize)> {
    let (answers, targets) = (answer_lists.len(), answer_rows.len());
    expect_shape::<RowList>(op, "answer_lists", answer_lists, &[answers])?;
    expect_shape::<u32>(op, "answer_rows", answer_rows, &[targets])?;
    if targets > MAX_TARGETS {
        let detail = format!("{targets} targets, a batch takes {MAX_TARGETS}");
        return Err(Error::shape(op, detail));
    }
    Ok((answers, targets))
}
