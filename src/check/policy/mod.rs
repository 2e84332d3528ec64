//! Cases of the kernels that improve a policy.

mod answers;
mod dpo_loss;
mod experience;
mod gae;
mod group_advantage;
mod grpo_loss;
mod ppo_loss;
mod rollout;
mod sample;
mod token_logprob;
mod value_head;
mod whiten;

pub use answers::answer_lists;

use crate::check::Case;

pub(super) fn cases() -> Vec<Case> {
    [
        token_logprob::cases(),
        value_head::cases(),
        experience::cases(),
        gae::cases(),
        group_advantage::cases(),
        whiten::cases(),
        ppo_loss::cases(),
        grpo_loss::cases(),
        dpo_loss::cases(),
        sample::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
