//! Reference forms of the kernels that improve a policy.

pub mod token_logprob;
