//! Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, equation 16).

use super::experience::Token;
use super::kl::kl_estimate;
use crate::kernels::policy::KlEstimator;

/// Options of [`gae`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaeOptions {
    /// Discount of what comes one token later.
    pub gamma: f64,
    /// Weight of longer sums.
    pub lambda: f64,
    /// Factor of each token's KL estimate.
    pub kl_coef: f64,
    /// Which estimate.
    pub kl_estimator: KlEstimator,
}

/// `A_t = Σ_l (gamma lambda)^l δ_{t+l}` and `A_t + V_t` of each token of one response, with
/// `δ_t = r_t + gamma V_{t+1} - V_t` and `V` 0 behind the last token.
///
/// `r_t` is the KL penalty, 0 where the weight is 0, plus `score` at the last token.
pub fn gae(tokens: &[Token], score: f64, options: &GaeOptions) -> Vec<(f64, f64)> {
    let reward = |t: usize| {
        let token = &tokens[t];
        let kl = kl_estimate(token.logprob - token.ref_logprob, options.kl_estimator);
        let penalty = if token.weight == 0.0 {
            0.0
        } else {
            options.kl_coef * kl
        };
        let last = t + 1 == tokens.len();
        if last { score - penalty } else { -penalty }
    };
    let mut out = vec![(0.0, 0.0); tokens.len()];
    let (mut value, mut advantage) = (0.0, 0.0);
    for t in (0..tokens.len()).rev() {
        let delta = reward(t) + options.gamma * value - tokens[t].value;
        advantage = delta + options.gamma * options.lambda * advantage;
        value = tokens[t].value;
        out[t] = (advantage, advantage + value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(values: &[f64]) -> Vec<Token> {
        let token = |&value: &f64| Token {
            logprob: -1.0,
            ref_logprob: -1.5,
            value,
            weight: 1.0,
        };
        values.iter().map(token).collect()
    }

    #[test]
    fn with_lambda_one_the_return_is_the_sum_of_rewards_to_come() {
        let options = GaeOptions {
            gamma: 1.0,
            lambda: 1.0,
            kl_coef: 0.1,
            kl_estimator: KlEstimator::K1,
        };
        let out = gae(&tokens(&[0.3, -2.0, 5.0]), 2.0, &options);
        for (t, (_, returns)) in out.iter().enumerate() {
            let expected = 2.0 - 0.05 * (3 - t) as f64;
            assert!((returns - expected).abs() < 1e-12, "{out:?}");
        }
    }

    #[test]
    fn with_lambda_zero_the_advantage_is_one_step() {
        let options = GaeOptions {
            gamma: 0.5,
            lambda: 0.0,
            kl_coef: 0.0,
            kl_estimator: KlEstimator::K3,
        };
        let out = gae(&tokens(&[1.0, 4.0]), 3.0, &options);
        assert_eq!(out, [(1.0, 2.0), (-1.0, 3.0)]);
        assert!(gae(&[], 3.0, &options).is_empty());
    }
}
