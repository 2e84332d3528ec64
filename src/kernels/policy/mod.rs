//! Kernels that improve a policy: log-probabilities, advantages, losses, sampling.
//!
//! Everything a policy says or feels is indexed by target: the row that predicts and the token
//! that came. A response's targets, in token order, are those of its list in
//! [`Batch::answer_lists`](crate::data::Batch::answer_lists).

pub mod dpo_loss;
pub mod experience;
pub mod gae;
pub mod group_advantage;
pub mod grpo_loss;
mod kl;
mod lists;
pub mod metrics;
pub mod ppo_loss;
pub mod sample;
pub mod sequence_logprob;
pub mod token_logprob;
pub mod value_head;
pub mod whiten;

pub use kl::{KlControl, KlEstimator};
pub use metrics::{DpoMetrics, POLICY_METRICS, PolicyMetrics};

use crate::gpu::{Lib, device_struct};
use crate::kernels::lib;

/// Estimates of the KL divergence.
pub(crate) const KL: &Lib = lib!("lib.kl", "kl.wgsl");

device_struct! {
    /// What the language model says about a target's token.
    pub struct TokenLogprob {
        /// Log-probability of the token under the whole vocabulary at the sampling temperature.
        pub logprob: f32,
        /// Entropy of the distribution it comes from, in nats.
        pub entropy: f32,
        /// `ln Σ exp(z / temperature)`.
        pub lse: f32,
        /// Zero.
        pub pad: u32,
    }
}

device_struct! {
    /// The gradient of the loss with respect to a target's log-probability and entropy.
    pub struct TokenGradient {
        /// Of [`TokenLogprob::logprob`].
        pub dlogprob: f32,
        /// Of [`TokenLogprob::entropy`].
        pub dentropy: f32,
    }
}

device_struct! {
    /// What is remembered of a sampled token until the policy has learnt from it.
    pub struct Experience {
        /// Log-probability under the policy that sampled, by the trainer's own forward pass.
        pub logprob: f32,
        /// Log-probability under the reference.
        pub ref_logprob: f32,
        /// The value model's estimate before the token.
        pub value: f32,
        /// How much better the token was than expected.
        pub advantage: f32,
        /// What the value should have been.
        pub returns: f32,
        /// Factor of the token's policy loss; 0 for what is not a real token.
        pub weight: f32,
        /// Zero.
        pub pad: [u32; 2],
    }
}

device_struct! {
    /// A sampled response: its reward, and what is summed over its tokens.
    pub struct Response {
        /// The reward, written by the host.
        pub score: f32,
        /// `Σ (logprob - ref_logprob)`: the one-sample estimate of the KL divergence from the
        /// reference, in nats.
        pub kl: f32,
        /// How much better the response was than its group.
        pub advantage: f32,
        /// `-Σ logprob`.
        pub surprisal: f32,
        /// The group's first response, by its index in the tensor of responses; written by the
        /// host.
        pub group_start: u32,
        /// Responses of the group; 0 for an entry that is not in use. Written by the host.
        pub group_len: u32,
        /// Zero.
        pub pad: [u32; 2],
    }
}
