//! Cases of the kernels that improve a policy.

mod answers;
mod dpo_loss;
mod grpo_loss;
mod ppo_loss;

pub use answers::answer_lists;

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = dpo_loss::cases();
    cases.extend(grpo_loss::cases());
    cases.extend(ppo_loss::cases());
    cases
}
