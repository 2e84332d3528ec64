//! Estimates of the KL divergence by one token (Schulman 2020, "Approximating KL divergence").

use crate::kernels::policy::KlEstimator;

/// The estimate of `l = logprob - ref_logprob`.
pub fn kl_estimate(l: f64, estimator: KlEstimator) -> f64 {
    match estimator {
        KlEstimator::K1 => l,
        KlEstimator::K2 => 0.5 * l * l,
        KlEstimator::K3 => (-l).exp_m1() + l,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimators_agree_to_second_order() {
        let l = 1e-3;
        assert_eq!(kl_estimate(l, KlEstimator::K1), l);
        let (k2, k3) = (
            kl_estimate(l, KlEstimator::K2),
            kl_estimate(l, KlEstimator::K3),
        );
        assert!((k3 / k2 - 1.0).abs() < l, "{k2} {k3}");
        assert!(kl_estimate(-2.0, KlEstimator::K3) > 0.0);
    }
}
