//! [`DpoStep`]: what one update on preferences did, and [`DpoWarning`]: what looks wrong about it.

use serde::{Deserialize, Serialize};

use crate::kernels::policy::DpoMetrics;

/// The figures of one update. Rewards are DPO's implicit ones, `beta (logprob - reference)`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DpoStep {
    /// The update, from 1.
    pub step: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean loss, by weight.
    pub loss: f64,
    /// The share of pairs whose chosen answer has the strictly higher reward.
    pub accuracy: f64,
    /// Mean of chosen less rejected reward.
    pub margin: f64,
    /// Mean reward of the chosen answers.
    pub chosen_reward: f64,
    /// Mean reward of the rejected answers.
    pub rejected_reward: f64,
    /// Mean log-probability of the chosen answers, in nats an answer.
    pub chosen_logprob: f64,
    /// Mean log-probability of the rejected answers.
    pub rejected_logprob: f64,
    /// Mean of the chosen answers' log-probability less that under the reference, in nats.
    pub chosen_shift: f64,
    /// The same of the rejected answers.
    pub rejected_shift: f64,
    /// Mean entropy of a token's distribution, in nats.
    pub entropy: f64,
    /// Pairs.
    pub pairs: u64,
    /// Packed tokens.
    pub tokens: usize,
    /// Tokens that separate sequences would have taken.
    pub tokens_without_sharing: usize,
}

/// How well a policy tells preferred answers from others.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DpoEvaluation {
    /// Pairs looked at.
    pub pairs: u64,
    /// Mean loss, by weight.
    pub loss: f64,
    /// The share of pairs whose chosen answer has the strictly higher reward.
    pub accuracy: f64,
    /// Mean of chosen less rejected reward.
    pub margin: f64,
    /// Mean of the chosen answers' log-probability less that under the reference, in nats.
    pub chosen_shift: f64,
}

/// Something in a run that usually precedes its failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DpoWarning {
    /// The first update does not start from the policy that the reference log-probabilities are
    /// of: chosen and rejected answers' shifts, in nats.
    NotTheReference([f64; 2]),
    /// The margin grows while the chosen answers themselves become unlikely.
    Displacement {
        /// Nats that the chosen answers lost.
        lost: f64,
        /// Their log-probability under the reference.
        reference: f64,
    },
    /// The pairs are so far apart that they teach nothing any more.
    Saturated(f64),
}

/// Log-probabilities that other programs computed in f32 may be this far off, in nats an answer.
const SAME_POLICY: f64 = 0.05;
/// The share of the chosen answers' surprisal that they may gain.
const DISPLACEMENT: f64 = 0.25;
/// `σ(-10)`, the gradient left at this margin, is 0.00005.
const SATURATED: f64 = 10.0;

impl DpoStep {
    /// What looks wrong about the update.
    pub fn warnings(&self) -> Vec<DpoWarning> {
        let mut warnings = Vec::new();
        let shifts = [self.chosen_shift, self.rejected_shift];
        if self.step == 1 && shifts.iter().any(|shift| shift.abs() > SAME_POLICY) {
            warnings.push(DpoWarning::NotTheReference(shifts));
        }
        let (lost, reference) = (-self.chosen_shift, self.chosen_logprob - self.chosen_shift);
        if self.margin > 0.0 && lost > DISPLACEMENT * reference.abs() {
            warnings.push(DpoWarning::Displacement { lost, reference });
        }
        if self.margin > SATURATED {
            warnings.push(DpoWarning::Saturated(self.margin));
        }
        warnings
    }

    /// Fills in what a loss measured with `beta`.
    pub(super) fn measured(self, metrics: &DpoMetrics, beta: f64) -> Self {
        let pairs = metrics.pairs.max(1.0);
        Self {
            loss: metrics.loss,
            accuracy: metrics.correct / pairs,
            margin: metrics.margin / pairs,
            chosen_reward: metrics.chosen_reward / pairs,
            rejected_reward: metrics.rejected_reward / pairs,
            chosen_logprob: metrics.chosen_logprob / pairs,
            rejected_logprob: metrics.rejected_logprob / pairs,
            chosen_shift: metrics.chosen_reward / beta / pairs,
            rejected_shift: metrics.rejected_reward / beta / pairs,
            entropy: metrics.entropy / metrics.tokens.max(1.0),
            pairs: metrics.pairs as u64,
            ..self
        }
    }
}

impl std::fmt::Display for DpoWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotTheReference([chosen, rejected]) => write!(
                f,
                "before the first update chosen and rejected answers already are {chosen:.2} and \
                 {rejected:.2} nats from their reference log-probabilities: these are of another \
                 model or other texts"
            ),
            Self::Displacement { lost, reference } => write!(
                f,
                "chosen answers lost {lost:.1} nats of {reference:.1} while the margin is positive \
                 (likelihood displacement): lower the learning rate, raise beta, or fine-tune on \
                 the chosen answers first"
            ),
            Self::Saturated(margin) => write!(
                f,
                "the mean margin is {margin:.1}: the pairs teach nothing any more; stop here, or \
                 use label_smoothing or ipo against overfitting"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut DpoStep);

    fn warned(change: impl Fn(&mut DpoStep)) -> Vec<String> {
        let mut step = DpoStep {
            step: 7,
            margin: 1.0,
            chosen_logprob: -80.0,
            chosen_shift: 2.0,
            rejected_shift: -8.0,
            ..DpoStep::default()
        };
        change(&mut step);
        step.warnings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_sign_is_seen() {
        assert!(warned(|_| {}).is_empty());
        let cases: [(Change, &str); 3] = [
            (|s| s.step = 1, "another model"),
            (
                |s| {
                    s.chosen_logprob = -101.0;
                    s.chosen_shift = -21.0;
                },
                "displacement",
            ),
            (|s| s.margin = 10.1, "teach nothing"),
        ];
        for (change, text) in cases {
            let warnings = warned(change);
            assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
            assert!(warnings[0].contains(text), "{}", warnings[0]);
        }
    }

    #[test]
    fn a_loss_within_a_quarter_is_no_sign() {
        let warnings = warned(|s| {
            s.chosen_logprob = -99.0;
            s.chosen_shift = -19.0;
        });
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
