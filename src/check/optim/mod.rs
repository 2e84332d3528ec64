//! Cases of the kernels in `shaders/optim`.

mod adamw;
mod grad_norm;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = grad_norm::cases();
    cases.extend(adamw::cases());
    cases
}
