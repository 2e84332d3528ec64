//! Cases of the kernels that improve a policy.

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    Vec::new()
}
