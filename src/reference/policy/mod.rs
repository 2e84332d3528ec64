//! Reference forms of the kernels that improve a policy.

pub mod dpo_loss;
pub mod grpo_loss;
pub mod ppo_loss;
pub mod ratio;
pub mod sample;
