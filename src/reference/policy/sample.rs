//! The distribution that a token is drawn from, and the draw.

use crate::reference::nn::cross_entropy::log_sum_exp;

/// How a token is drawn from logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; above 0.
    pub temperature: f64,
    /// How many tokens are kept; 0: all.
    pub top_k: usize,
    /// How much of the probability is kept, in (0, 1]; 1: all.
    pub top_p: f64,
}

/// The probabilities of a row of logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// `ln softmax(z / temperature)`, `[V]`.
    pub logprobs: Vec<f64>,
    /// Whether a token is kept, `[V]`.
    pub kept: Vec<bool>,
    /// `ln` of the sum of the kept tokens' probabilities: what
    /// `sampling_logprob = logprob - kept_logprob` divides by.
    pub kept_logprob: f64,
}

/// What is kept of `logits` `[V]`: the `top_k` largest, then the largest probabilities of these
/// that together have `top_p` of what these have; equals of the last one kept are kept.
///
/// Top-k: Fan et al. 2018, arXiv 1805.04833, section 5.4. Top-p: Holtzman et al. 2020, arXiv
/// 1904.09751, section 3.1.
pub fn distribution(logits: &[f64], sampling: &Sampling) -> Distribution {
    let scaled: Vec<f64> = logits.iter().map(|z| z / sampling.temperature).collect();
    let lse = log_sum_exp(&scaled);
    let logprobs: Vec<f64> = scaled.iter().map(|z| z - lse).collect();
    let mut order = logprobs.clone();
    order.sort_by(|a, b| b.total_cmp(a));
    let mut last = order[order.len() - 1];
    if (1..order.len()).contains(&sampling.top_k) {
        last = order[sampling.top_k - 1];
    }
    if sampling.top_p < 1.0 {
        let candidates: Vec<f64> = order.into_iter().filter(|&p| p >= last).collect();
        let mass: f64 = candidates.iter().map(|logprob| logprob.exp()).sum();
        let mut sum = 0.0;
        for logprob in candidates {
            if sum >= sampling.top_p * mass {
                break;
            }
            sum += logprob.exp();
            last = logprob;
        }
    }
    let kept: Vec<bool> = logprobs.iter().map(|&logprob| logprob >= last).collect();
    let mass = logprobs.iter().zip(&kept).filter(|(_, kept)| **kept);
    Distribution {
        kept_logprob: mass.map(|(logprob, _)| logprob.exp()).sum::<f64>().ln(),
        logprobs,
        kept,
    }
}

/// Tokens in the order that the kernel's cumulative sum runs: 256 threads each take every 256th
/// group of four tokens.
fn order(vocabulary: usize) -> impl Iterator<Item = usize> {
    let fours = vocabulary.div_ceil(4);
    (0..256)
        .flat_map(move |thread| (thread..fours).step_by(256))
        .flat_map(|four| 4 * four..4 * four + 4)
        .filter(move |&token| token < vocabulary)
}

/// The token at which the cumulative sum of the kept probabilities passes `uniform` (in [0, 1)) of
/// their whole.
pub fn draw(distribution: &Distribution, uniform: f64) -> usize {
    let mut left = uniform * distribution.kept_logprob.exp();
    let mut token = 0;
    for candidate in order(distribution.kept.len()) {
        if distribution.kept[candidate] {
            token = candidate;
            left -= distribution.logprobs[candidate].exp();
            if left < 0.0 {
                break;
            }
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(logits: &[f64], top_k: usize, top_p: f64) -> Vec<usize> {
        let sampling = Sampling {
            temperature: 1.0,
            top_k,
            top_p,
        };
        let distribution = distribution(logits, &sampling);
        (0..logits.len())
            .filter(|&i| distribution.kept[i])
            .collect()
    }

    #[test]
    fn sets_are_those_of_a_sorted_list() {
        let p: Vec<f64> = [0.1, 0.4, 0.2, 0.3].iter().map(|p: &f64| p.ln()).collect();
        assert_eq!(kept(&p, 0, 1.0), [0, 1, 2, 3]);
        assert_eq!(kept(&p, 2, 1.0), [1, 3]);
        assert_eq!(kept(&p, 9, 1.0), [0, 1, 2, 3]);
        assert_eq!(kept(&p, 0, 0.65), [1, 3]);
        assert_eq!(kept(&p, 0, 0.75), [1, 2, 3]);
        assert_eq!(kept(&p, 0, 1e-9), [1]);
        // Of the two kept, the first has 4/7.
        assert_eq!(kept(&p, 2, 0.56), [1]);
        assert_eq!(kept(&p, 2, 0.58), [1, 3]);
        assert_eq!(kept(&[1.0, 0.0, 1.0, 1.0], 2, 1.0), [0, 2, 3]);
    }

    #[test]
    fn draws_follow_the_cumulative_sum() {
        let p: Vec<f64> = [0.1, 0.4, 0.2, 0.3].iter().map(|p: &f64| p.ln()).collect();
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 3,
            top_p: 1.0,
        };
        let distribution = distribution(&p, &sampling);
        for (uniform, token) in [
            (0.0, 1),
            (0.44, 1),
            (0.45, 2),
            (0.66, 2),
            (0.67, 3),
            (0.999, 3),
        ] {
            assert_eq!(draw(&distribution, uniform), token, "{uniform}");
        }
    }
}
