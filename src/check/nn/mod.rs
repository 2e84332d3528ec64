//! Cases of the kernels in `shaders/nn`.

mod cross_entropy;
mod matmul;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = matmul::cases();
    cases.extend(cross_entropy::cases());
    cases
}
