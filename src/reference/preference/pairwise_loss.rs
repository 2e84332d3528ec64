//! The Bradley-Terry loss over pairs of rewards.
//!
//! `-log σ(r_chosen - r_rejected)` (Bradley and Terry 1952; as a reward-model loss Ouyang et al.
//! 2022, arXiv 2203.02155, section 3.5), with a margin a pair (Touvron et al. 2023, arXiv
//! 2307.09288, section 3.2.2), label smoothing, and rewards centred around zero (Eisenstein et al.
//! 2023, arXiv 2312.09244).

/// What is known of a pair besides its two rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Factor of this pair's loss.
    pub weight: f64,
    /// By how much the chosen reward should exceed the rejected one.
    pub margin: f64,
}

/// Options of [`pairwise_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairwiseLossOptions {
    /// Probability with which a label is assumed to be wrong, in `[0, 0.5)`.
    pub label_smoothing: f64,
    /// Coefficient of `(r_c + r_r)²`.
    pub centering: f64,
    /// Factor of every pair's loss and gradient, usually one over the number of pairs of the step.
    pub pair_scale: f64,
}

/// Figures over all pairs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairwiseStatistics {
    /// `pair_scale Σ_p loss_p`.
    pub loss: f64,
    /// Number of pairs with `r_c > r_r`; a tie does not count.
    pub correct: f64,
    /// `Σ_p (r_c - r_r)`, without margins.
    pub gap_sum: f64,
    /// `Σ_p (r_c + r_r)`.
    pub reward_sum: f64,
    /// `Σ_p (r_c² + r_r²)`.
    pub reward_square_sum: f64,
}

/// What [`pairwise_loss`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct PairwiseLoss {
    /// `loss_p` of each pair, with its weight and without `pair_scale`, `[P]`.
    pub losses: Vec<f64>,
    /// Gradient of `statistics.loss` with respect to the rewards, `[2P]`.
    pub drewards: Vec<f64>,
    /// Figures over all pairs.
    pub statistics: PairwiseStatistics,
}

/// Loss, gradients and statistics of `P` pairs; the rewards `[2P]` stand as
/// `[chosen 0, rejected 0, chosen 1, rejected 1, ...]`.
///
/// With `d = r_c - r_r - margin` and label smoothing `ε`,
/// `loss_p = weight (-(1 - ε) log σ(d) - ε log σ(-d) + centering (r_c + r_r)²)`, so
/// `∂loss_p/∂r_c = weight (-(1 - ε) σ(-d) + ε σ(d) + 2 centering (r_c + r_r))`, and with the sign
/// of the first two terms turned for `r_r`.
pub fn pairwise_loss(
    rewards: &[f64],
    pairs: &[Pair],
    options: &PairwiseLossOptions,
) -> PairwiseLoss {
    assert_eq!(rewards.len(), 2 * pairs.len(), "two rewards a pair");
    let smoothing = options.label_smoothing;
    let mut losses = Vec::with_capacity(pairs.len());
    let mut drewards = Vec::with_capacity(rewards.len());
    let mut statistics = PairwiseStatistics::default();
    for (rewards, pair) in rewards.chunks_exact(2).zip(pairs) {
        let (chosen, rejected) = (rewards[0], rewards[1]);
        let d = chosen - rejected - pair.margin;
        let sum = chosen + rejected;
        let loss = pair.weight
            * (-(1.0 - smoothing) * log_sigmoid(d) - smoothing * log_sigmoid(-d)
                + options.centering * sum * sum);
        let by_gap = -(1.0 - smoothing) * sigmoid(-d) + smoothing * sigmoid(d);
        let by_sum = 2.0 * options.centering * sum;
        let factor = options.pair_scale * pair.weight;
        losses.push(loss);
        drewards.push(factor * (by_gap + by_sum));
        drewards.push(factor * (-by_gap + by_sum));
        statistics.loss += options.pair_scale * loss;
        statistics.correct += if chosen > rejected { 1.0 } else { 0.0 };
        statistics.gap_sum += chosen - rejected;
        statistics.reward_sum += sum;
        statistics.reward_square_sum += chosen * chosen + rejected * rejected;
    }
    PairwiseLoss {
        losses,
        drewards,
        statistics,
    }
}

/// `log σ(x) = min(x, 0) - ln(1 + exp(-|x|))`: never overflows, and keeps its digits where `σ(x)`
/// is close to 1.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `σ(x) = 1 / (1 + exp(-x))`; for large negative `x` the exponential is infinite and the
/// quotient 0.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sigmoid_keeps_its_digits_at_both_ends() {
        assert_eq!(log_sigmoid(0.0), -std::f64::consts::LN_2);
        assert_eq!(log_sigmoid(-1e4), -1e4);
        assert_eq!(log_sigmoid(1e4), 0.0);
        // log σ(x) is -exp(-x) (1 + O(exp(-x))) for large x: a plain ln(1 + ·) would give 0 here.
        let expected = -(-40.0_f64).exp();
        assert!((log_sigmoid(40.0) / expected - 1.0).abs() < 1e-12);
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(1e4), 1.0);
    }

    #[test]
    fn a_tie_is_not_correct_and_no_pairs_give_zeros() {
        let options = PairwiseLossOptions {
            label_smoothing: 0.0,
            centering: 0.0,
            pair_scale: 0.5,
        };
        let pair = Pair {
            weight: 1.0,
            margin: 0.0,
        };
        let out = pairwise_loss(&[2.0, 2.0, 3.0, -1.0], &[pair, pair], &options);
        assert_eq!(out.statistics.correct, 1.0);
        assert_eq!(out.statistics.gap_sum, 4.0);
        assert_eq!(out.statistics.reward_sum, 6.0);
        assert_eq!(out.statistics.reward_square_sum, 18.0);
        let none = pairwise_loss(&[], &[], &options);
        assert_eq!(none.statistics.loss, 0.0);
        assert!(none.losses.is_empty() && none.drewards.is_empty());
    }
}
