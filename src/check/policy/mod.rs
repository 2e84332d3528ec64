//! Cases of the kernels that improve a policy.

mod answers;
mod dpo_loss;
mod experience;
mod gae;
mod group_advantage;
mod grpo_loss;
mod ppo_loss;
mod rollout;
mod whiten;

pub use answers::answer_lists;

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = dpo_loss::cases();
    cases.extend(experience::cases());
    cases.extend(gae::cases());
    cases.extend(group_advantage::cases());
    cases.extend(grpo_loss::cases());
    cases.extend(ppo_loss::cases());
    cases.extend(whiten::cases());
    cases
}
