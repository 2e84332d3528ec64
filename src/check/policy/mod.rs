//! Cases of the kernels that improve a policy.

mod sample;
mod token_logprob;
mod value_head;

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = token_logprob::cases();
    cases.extend(sample::cases());
    cases.extend(value_head::cases());
    cases
}
