//! Cases of the kernels in `shaders/nn`.

mod matmul;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    matmul::cases()
}
