//! The losses of GRPO, GSPO and RLOO: responses with one advantage each.

use super::ratio::{Interval, Surrogate, add_ratio, bounded_exp, exp_excess, held, surrogate};
use crate::kernels::policy::PolicyMetrics;
use crate::kernels::policy::grpo_loss::RatioLevel;

/// One token of a response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GrpoToken {
    /// Log-probability under the policy that is trained.
    pub logprob: f64,
    /// Entropy of the distribution it comes from.
    pub entropy: f64,
    /// Log-probability under the policy that sampled.
    pub old_logprob: f64,
    /// Log-probability under the reference.
    pub ref_logprob: f64,
    /// Factor of its loss; 0 for what is not a real token.
    pub weight: f64,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GrpoResponse {
    /// Its tokens in order.
    pub tokens: Vec<GrpoToken>,
    /// How much better it was than its group.
    pub advantage: f64,
}

/// Options of [`grpo_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GrpoLossOptions {
    /// Where ratios are clipped.
    pub interval: Interval,
    /// Factor of the KL divergence.
    pub beta: f64,
    /// Multiply the divergence by the ratio.
    pub kl_bias_correction: bool,
    /// Whose ratio it is.
    pub level: RatioLevel,
    /// Factor of every token's loss.
    pub target_scale: f64,
}

/// What [`grpo_loss`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpoLoss {
    /// Gradient with respect to each log-probability, response by response.
    pub dlogprobs: Vec<Vec<f64>>,
    /// The loss and other figures.
    pub metrics: PolicyMetrics,
}

/// `target_scale Σ weight (-min(min(r, δ) A, clamp(r) A) + beta k)` with the ratio of each token
/// or of the response, and `k = exp(q) - 1 - q`, `q = ref_logprob - logprob`, times `r` with the
/// bias correction (Shao et al. 2024, arXiv 2402.03300, equation 3; GSPO arXiv 2507.18071; RLOO
/// arXiv 2402.14740).
pub fn grpo_loss(responses: &[GrpoResponse], options: &GrpoLossOptions) -> GrpoLoss {
    let mut metrics = PolicyMetrics::default();
    let dlogprobs = responses
        .iter()
        .map(|response| response_loss(response, options, &mut metrics))
        .collect();
    GrpoLoss { dlogprobs, metrics }
}

/// Log-ratio of the response, and its derivative with respect to each real token's.
fn sequence_ratio(response: &GrpoResponse, level: RatioLevel) -> (f64, f64) {
    let real = response.tokens.iter().filter(|token| token.weight != 0.0);
    let count = real.clone().count().max(1) as f64;
    let sum: f64 = real.map(|token| token.logprob - token.old_logprob).sum();
    match level {
        RatioLevel::Token => (0.0, 0.0),
        RatioLevel::SequenceMean => (sum / count, 1.0 / count),
        RatioLevel::SequenceSum => (sum, 1.0),
    }
}

fn response_loss(
    response: &GrpoResponse,
    options: &GrpoLossOptions,
    metrics: &mut PolicyMetrics,
) -> Vec<f64> {
    let by_token = options.level == RatioLevel::Token;
    let (whole, share) = sequence_ratio(response, options.level);
    metrics.held += held(whole);
    let mut dlogprobs = vec![0.0; response.tokens.len()];
    // Derivative with respect to the log-ratio of the response.
    let mut dwhole = 0.0;
    for (token, dlogprob) in response.tokens.iter().zip(&mut dlogprobs) {
        if token.weight == 0.0 {
            continue;
        }
        let own = token.logprob - token.old_logprob;
        let log_ratio = if by_token { own } else { whole };
        let clipped = surrogate(log_ratio, response.advantage, &options.interval);
        let ratio = bounded_exp(log_ratio);
        add_ratio(metrics, own, ratio, &clipped, token.entropy);
        let scale = options.target_scale * token.weight;
        let (dratio, dkl) = token_loss(token, options, ratio, &clipped, scale, metrics);
        *dlogprob = scale * (dkl + if by_token { dratio } else { 0.0 });
        dwhole += scale * dratio;
    }
    if !by_token {
        for (token, dlogprob) in response.tokens.iter().zip(&mut dlogprobs) {
            if token.weight != 0.0 {
                *dlogprob += dwhole * share;
            }
        }
    }
    dlogprobs
}

/// Adds a token's loss to the figures; its derivatives with respect to the log-ratio, and to the
/// log-probability by way of the divergence alone.
fn token_loss(
    token: &GrpoToken,
    options: &GrpoLossOptions,
    ratio: f64,
    clipped: &Surrogate,
    scale: f64,
    metrics: &mut PolicyMetrics,
) -> (f64, f64) {
    let q = token.ref_logprob - token.logprob;
    let plain = exp_excess(q);
    let (kl, dkl, dratio) = if options.kl_bias_correction {
        (plain * ratio, (1.0 - bounded_exp(q)) * ratio, plain * ratio)
    } else {
        (plain, 1.0 - bounded_exp(q), 0.0)
    };
    metrics.held += held(q);
    metrics.kl += kl;
    metrics.policy_loss += scale * clipped.loss;
    metrics.loss += scale * (clipped.loss + options.beta * kl);
    (clipped.slope + options.beta * dratio, options.beta * dkl)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::reference::gradient::check_gradient;

    fn responses(lengths: &[usize]) -> Vec<GrpoResponse> {
        let response = |(i, &len): (usize, &usize)| {
            let x: Vec<f64> = values(i as u64, 4 * len, 1.0)
                .into_iter()
                .map(f64::from)
                .collect();
            GrpoResponse {
                tokens: x
                    .chunks(4)
                    .map(|x| GrpoToken {
                        logprob: -2.0 + x[0],
                        old_logprob: -2.0 + 0.6 * x[0] + 0.2 * x[1],
                        ref_logprob: -2.0 + x[2],
                        entropy: 1.0,
                        weight: if x[3] > 0.7 { 0.0 } else { 0.3 + x[3].abs() },
                    })
                    .collect(),
                advantage: [1.2, -0.8, -1.5][i % 3],
            }
        };
        lengths.iter().enumerate().map(response).collect()
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let before = responses(&[1, 5, 9, 0, 3, 12]);
        for level in [
            RatioLevel::Token,
            RatioLevel::SequenceMean,
            RatioLevel::SequenceSum,
        ] {
            for kl_bias_correction in [false, true] {
                let options = GrpoLossOptions {
                    interval: Interval {
                        low: 0.8,
                        high: 1.28,
                        delta: kl_bias_correction.then_some(1.5),
                    },
                    beta: 0.3,
                    kl_bias_correction,
                    level,
                    target_scale: 0.4,
                };
                let gradient = grpo_loss(&before, &options).dlogprobs.concat();
                let tokens = before.iter().flat_map(|response| &response.tokens);
                let x: Vec<f64> = tokens.map(|token| token.logprob).collect();
                let mut moved = before.clone();
                let f = |x: &[f64]| {
                    let tokens = moved.iter_mut().flat_map(|response| &mut response.tokens);
                    tokens.zip(x).for_each(|(token, &x)| token.logprob = x);
                    grpo_loss(&moved, &options).metrics.loss
                };
                let error = check_gradient(f, &x, &gradient, 1e-6);
                assert!(error < 1e-7, "{options:?}: {error}");
            }
        }
    }
}
