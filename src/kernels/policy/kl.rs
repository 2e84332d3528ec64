//! Estimates of the KL divergence from the reference, and how much it weighs.

use crate::gpu::device_struct;

/// An estimate of the KL divergence from the reference by one sampled token, with
/// `l = logprob - ref_logprob` (Schulman 2020, "Approximating KL divergence").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum KlEstimator {
    /// `l`: unbiased, of either sign.
    #[default]
    K1 = 1,
    /// `l² / 2`: biased, of little variance, never negative.
    K2 = 2,
    /// `exp(-l) - 1 + l`: unbiased, never negative.
    K3 = 3,
}

device_struct! {
    /// What the host changes about the KL penalty between rollouts, bound as a uniform.
    pub struct KlControl {
        /// Factor of the estimate of each token.
        pub kl_coef: f32,
        /// Zero.
        pub pad: [u32; 3],
    }
}
