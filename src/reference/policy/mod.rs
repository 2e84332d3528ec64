//! Reference forms of the kernels that improve a policy.

pub mod experience;
pub mod gae;
pub mod group_advantage;
pub mod kl;
pub mod sample;
pub mod token_logprob;
pub mod whiten;
