//! Reference forms of the kernels that improve a policy.

pub mod dpo_loss;
pub mod experience;
pub mod gae;
pub mod group_advantage;
pub mod grpo_loss;
pub mod kl;
pub mod ppo_loss;
pub mod ratio;
pub mod sample;
pub mod token_logprob;
pub mod whiten;
