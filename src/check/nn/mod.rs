//! Cases of the kernels in `shaders/nn`.

pub mod attention;
mod matmul;

use super::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = matmul::cases();
    cases.extend(attention::cases());
    cases
}
