//! PPO's clipped loss with value loss, entropy bonus and KL penalty.

use super::ratio::{Interval, add_ratio, bounded_exp, exp_excess, held, surrogate};
use crate::kernels::policy::{KlEstimator, PolicyMetrics};

/// What is known of one target.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PpoTarget {
    /// Log-probability under the policy that is trained.
    pub logprob: f64,
    /// Entropy of the distribution it comes from.
    pub entropy: f64,
    /// Value under the model that is trained.
    pub value: f64,
    /// Log-probability under the policy that sampled.
    pub old_logprob: f64,
    /// Log-probability under the reference.
    pub ref_logprob: f64,
    /// Value when the token was sampled.
    pub old_value: f64,
    /// How much better the token was than expected.
    pub advantage: f64,
    /// What the value should be.
    pub returns: f64,
    /// Factor of the policy loss; 0 for what is not a real token.
    pub weight: f64,
}

/// Options of [`ppo_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PpoLossOptions {
    /// ε of the ratio.
    pub clip_range: f64,
    /// ε of the value; `None`: not clipped.
    pub clip_range_value: Option<f64>,
    /// Factor of the value loss.
    pub vf_coef: f64,
    /// Factor of the entropy bonus.
    pub entropy_coef: f64,
    /// The KL penalty in the loss, and its factor.
    pub kl_in_loss: Option<(KlEstimator, f64)>,
    /// Factor of every policy loss.
    pub target_scale: f64,
    /// Factor of every value loss.
    pub value_scale: f64,
}

/// What [`ppo_loss`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct PpoLoss {
    /// Gradient of the loss with respect to `logprob`, `[N]`.
    pub dlogprobs: Vec<f64>,
    /// With respect to `entropy`, `[N]`.
    pub dentropies: Vec<f64>,
    /// With respect to `value`, `[N]`.
    pub dvalues: Vec<f64>,
    /// The loss and other figures.
    pub metrics: PolicyMetrics,
}

/// The loss of `N` targets:
/// `target_scale Σ weight (-min(r A, clamp(r, 1 - ε, 1 + ε) A) + kl_coef kl - entropy_coef H) +
/// value_scale vf_coef Σ max((v - R)², (clamp(v, v_old ± ε_v) - R)²) / 2`
/// (Schulman et al. 2017, arXiv 1707.06347, equations 7 and 9; values clipped as in TRL).
pub fn ppo_loss(targets: &[PpoTarget], options: &PpoLossOptions) -> PpoLoss {
    let mut out = PpoLoss {
        dlogprobs: vec![0.0; targets.len()],
        dentropies: vec![0.0; targets.len()],
        dvalues: vec![0.0; targets.len()],
        metrics: PolicyMetrics::default(),
    };
    for (n, target) in targets.iter().enumerate() {
        out.dvalues[n] = value_loss(target, options, &mut out.metrics);
        if target.weight != 0.0 {
            let scale = options.target_scale * target.weight;
            out.dlogprobs[n] = scale * policy_loss(target, options, scale, &mut out.metrics);
            out.dentropies[n] = -scale * options.entropy_coef;
        }
    }
    out
}

/// Adds the value loss to the figures and gives its gradient.
fn value_loss(target: &PpoTarget, options: &PpoLossOptions, metrics: &mut PolicyMetrics) -> f64 {
    let error = target.value - target.returns;
    let clipped = match options.clip_range_value {
        Some(range) => {
            let value = target.value;
            value.clamp(target.old_value - range, target.old_value + range) - target.returns
        }
        None => error,
    };
    let is_clipped = clipped * clipped > error * error;
    let (larger, slope) = if is_clipped {
        (clipped, 0.0)
    } else {
        (error, error)
    };
    let loss = options.value_scale * 0.5 * larger * larger;
    metrics.value_loss += loss;
    metrics.loss += options.vf_coef * loss;
    metrics.value_clip += f64::from(u8::from(is_clipped));
    options.value_scale * options.vf_coef * slope
}

/// Adds the policy loss to the figures and gives its derivative with respect to the
/// log-probability, without `scale`.
fn policy_loss(
    target: &PpoTarget,
    options: &PpoLossOptions,
    scale: f64,
    metrics: &mut PolicyMetrics,
) -> f64 {
    let log_ratio = target.logprob - target.old_logprob;
    let interval = Interval {
        low: 1.0 - options.clip_range,
        high: 1.0 + options.clip_range,
        delta: None,
    };
    let clipped = surrogate(log_ratio, target.advantage, &interval);
    let (estimator, kl_coef) = options.kl_in_loss.unwrap_or((KlEstimator::K1, 0.0));
    let q = target.logprob - target.ref_logprob;
    let (kl, dkl) = match estimator {
        KlEstimator::K1 => (q, 1.0),
        KlEstimator::K2 => (0.5 * q * q, q),
        KlEstimator::K3 => (exp_excess(-q), 1.0 - bounded_exp(-q)),
    };
    add_ratio(
        metrics,
        log_ratio,
        bounded_exp(log_ratio),
        &clipped,
        target.entropy,
    );
    if estimator == KlEstimator::K3 {
        metrics.held += held(-q);
    }
    metrics.kl += kl;
    metrics.policy_loss += scale * clipped.loss;
    metrics.loss += scale * (clipped.loss + kl_coef * kl - options.entropy_coef * target.entropy);
    clipped.slope + kl_coef * dkl
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::reference::gradient::check_gradient;

    fn targets(n: usize) -> Vec<PpoTarget> {
        let all: Vec<f64> = values(3, 8 * n, 1.0).into_iter().map(f64::from).collect();
        let target = |x: &[f64]| PpoTarget {
            logprob: -2.0 + x[0],
            old_logprob: -2.0 + 0.7 * x[0] + 0.3 * x[1],
            ref_logprob: -2.0 + x[2],
            entropy: 2.0 + x[3],
            value: x[4],
            old_value: x[4] + 0.4 * x[5],
            advantage: x[6],
            returns: x[7],
            weight: if x[3] > 0.6 { 0.0 } else { 1.5 + x[3] },
        };
        all.chunks(8).map(target).collect()
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let before = targets(40);
        for kl in [
            None,
            Some(KlEstimator::K1),
            Some(KlEstimator::K2),
            Some(KlEstimator::K3),
        ] {
            let options = PpoLossOptions {
                clip_range: 0.2,
                clip_range_value: kl.map(|_| 0.2),
                vf_coef: 0.3,
                entropy_coef: 0.05,
                kl_in_loss: kl.map(|kl| (kl, 0.4)),
                target_scale: 0.7,
                value_scale: 1.3,
            };
            let out = ppo_loss(&before, &options);
            assert!(out.metrics.clip_low > 0.0 && out.metrics.clip_high > 0.0);
            let check = |set: fn(&mut PpoTarget) -> &mut f64, gradient: &[f64]| {
                let mut moved = before.clone();
                let x: Vec<f64> = moved.iter_mut().map(|t| *set(t)).collect();
                let f = |x: &[f64]| {
                    moved.iter_mut().zip(x).for_each(|(t, &x)| *set(t) = x);
                    ppo_loss(&moved, &options).metrics.loss
                };
                let error = check_gradient(f, &x, gradient, 1e-6);
                assert!(error < 1e-7, "{kl:?}: {error}");
            };
            check(|t| &mut t.logprob, &out.dlogprobs);
            check(|t| &mut t.entropy, &out.dentropies);
            check(|t| &mut t.value, &out.dvalues);
        }
    }
}
