//! Cases of the kernels that improve a policy.

mod experience;
mod gae;
mod group_advantage;
mod rollout;
mod token_logprob;
mod value_head;
mod whiten;

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = experience::cases();
    cases.extend(gae::cases());
    cases.extend(group_advantage::cases());
    cases.extend(token_logprob::cases());
    cases.extend(value_head::cases());
    cases.extend(whiten::cases());
    cases
}
