//! Reference forms of the kernels that improve a policy.

pub mod sample;
pub mod token_logprob;
