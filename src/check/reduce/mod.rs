//! Cases of the kernels in `shaders/reduce`.

mod fill;
mod statistic;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = statistic::cases();
    cases.extend(fill::cases());
    cases
}
