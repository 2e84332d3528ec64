//! The losses of DPO and its relatives over pairs of answers.

use crate::kernels::policy::DpoMetrics;
use crate::kernels::policy::dpo_loss::DpoLoss;
use crate::reference::preference::pairwise_loss::{log_sigmoid, sigmoid};

/// What is known of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DpoAnswer {
    /// Log-probability of each token under the policy.
    pub logprobs: Vec<f64>,
    /// Entropy at each token.
    pub entropies: Vec<f64>,
    /// Summed log-probability under the reference.
    pub ref_logp: f64,
}

/// A preference of one answer over another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DpoPair {
    /// The better answer.
    pub chosen: DpoAnswer,
    /// The worse answer.
    pub rejected: DpoAnswer,
    /// Factor of the loss.
    pub weight: f64,
}

/// Options of [`dpo_loss`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DpoLossOptions {
    /// Which loss.
    pub loss: DpoLoss,
    /// How strongly the policy is held near the reference.
    pub beta: f64,
    /// Probability with which a label is assumed to be wrong.
    pub label_smoothing: f64,
    /// Factor of every pair's loss.
    pub pair_scale: f64,
}

/// Gradients and figures of [`dpo_loss`].
#[derive(Debug, Clone, PartialEq)]
pub struct DpoLosses {
    /// Gradient of the log-probability of each token of the chosen and of the rejected answer, one
    /// number for all tokens of an answer, `[P]`.
    pub dlogprobs: Vec<[f64; 2]>,
    /// The loss and other figures.
    pub metrics: DpoMetrics,
}

/// `pair_scale Σ weight loss(d)`, see [`DpoLoss`].
pub fn dpo_loss(pairs: &[DpoPair], options: &DpoLossOptions) -> DpoLosses {
    let mut metrics = DpoMetrics::default();
    let dlogprobs = pairs
        .iter()
        .map(|pair| pair_loss(pair, options, &mut metrics))
        .collect();
    DpoLosses { dlogprobs, metrics }
}

fn pair_loss(pair: &DpoPair, options: &DpoLossOptions, metrics: &mut DpoMetrics) -> [f64; 2] {
    let answers = [&pair.chosen, &pair.rejected];
    let logps = answers.map(|answer| answer.logprobs.iter().sum::<f64>());
    let [a, b] = [0, 1].map(|i| logps[i] - answers[i].ref_logp);
    let shares = answers.map(|answer| match options.loss {
        DpoLoss::SigmoidNorm | DpoLoss::Ipo { per_token: true } => {
            1.0 / answer.logprobs.len().max(1) as f64
        }
        _ => 1.0,
    });
    let (loss, dloss) = loss_of(a * shares[0] - b * shares[1], options);
    let scale = options.pair_scale * pair.weight;
    metrics.loss += scale * loss;
    metrics.correct += f64::from(u8::from(a > b));
    metrics.margin += options.beta * (a - b);
    metrics.chosen_reward += options.beta * a;
    metrics.rejected_reward += options.beta * b;
    metrics.chosen_logprob += logps[0];
    metrics.rejected_logprob += logps[1];
    metrics.pairs += 1.0;
    for answer in answers {
        metrics.entropy += answer.entropies.iter().sum::<f64>();
        metrics.tokens += answer.logprobs.len() as f64;
    }
    [scale * dloss * shares[0], -scale * dloss * shares[1]]
}

/// The loss of a gap and its derivative.
pub fn loss_of(d: f64, options: &DpoLossOptions) -> (f64, f64) {
    let DpoLossOptions {
        loss,
        beta,
        label_smoothing: s,
        ..
    } = *options;
    let z = beta * d;
    match loss {
        DpoLoss::Sigmoid | DpoLoss::SigmoidNorm => (
            -(1.0 - s) * log_sigmoid(z) - s * log_sigmoid(-z),
            beta * (s * sigmoid(z) - (1.0 - s) * sigmoid(-z)),
        ),
        DpoLoss::Robust => (
            (-(1.0 - s) * log_sigmoid(z) + s * log_sigmoid(-z)) / (1.0 - 2.0 * s),
            beta * (-(1.0 - s) * sigmoid(-z) - s * sigmoid(z)) / (1.0 - 2.0 * s),
        ),
        DpoLoss::Hinge if z < 1.0 => (1.0 - z, -beta),
        DpoLoss::Hinge => (0.0, 0.0),
        DpoLoss::Ipo { .. } => {
            let gap = d - 0.5 / beta;
            (gap * gap, 2.0 * gap)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::reference::gradient::check_gradient;

    fn answer(seed: u64, len: usize) -> DpoAnswer {
        let x = values(seed, len + 1, 2.0);
        DpoAnswer {
            logprobs: x[..len].iter().map(|&x| f64::from(x) - 2.0).collect(),
            entropies: vec![1.0; len],
            ref_logp: f64::from(x[len]) - 2.0 * len as f64,
        }
    }

    #[test]
    fn gradients_are_those_of_the_loss() {
        let lengths: [(usize, usize); 4] = [(1, 1), (5, 3), (2, 9), (4, 4)];
        let pair = |(i, (c, r))| DpoPair {
            chosen: answer(i, c),
            rejected: answer(i + 10, r),
            weight: 1.0 + i as f64,
        };
        let before: Vec<DpoPair> = (0..).zip(lengths).map(pair).collect();
        for loss in [
            DpoLoss::Sigmoid,
            DpoLoss::SigmoidNorm,
            DpoLoss::Robust,
            DpoLoss::Hinge,
            DpoLoss::Ipo { per_token: true },
            DpoLoss::Ipo { per_token: false },
        ] {
            let options = DpoLossOptions {
                loss,
                beta: 0.3,
                label_smoothing: 0.1,
                pair_scale: 0.7,
            };
            let gradient: Vec<f64> = dpo_loss(&before, &options).dlogprobs.concat();
            // The first token of each answer stands for all of them.
            let mut moved = before.clone();
            let sides = |pair: &mut DpoPair, x: &[f64]| {
                pair.chosen.logprobs[0] = x[0];
                pair.rejected.logprobs[0] = x[1];
            };
            let x: Vec<f64> = before
                .iter()
                .flat_map(|pair| [pair.chosen.logprobs[0], pair.rejected.logprobs[0]])
                .collect();
            let f = |x: &[f64]| {
                let pairs = moved.iter_mut().zip(x.chunks(2));
                pairs.for_each(|(pair, x)| sides(pair, x));
                dpo_loss(&moved, &options).metrics.loss
            };
            let error = check_gradient(f, &x, &gradient, 1e-6);
            assert!(error < 1e-7, "{loss:?}: {error}");
        }
    }

    #[test]
    fn the_kink_of_the_hinge_has_no_gradient() {
        let options = DpoLossOptions {
            loss: DpoLoss::Hinge,
            beta: 0.5,
            label_smoothing: 0.0,
            pair_scale: 1.0,
        };
        assert_eq!(loss_of(2.0, &options), (0.0, 0.0));
        assert_eq!(loss_of(1.0, &options), (0.5, -0.5));
    }
}
