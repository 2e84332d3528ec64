//! Cases of the kernels in `shaders/preference`.

mod pairwise_loss;
mod pooled_head;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = pairwise_loss::cases();
    cases.extend(pooled_head::cases());
    cases
}
