//! [`RewardOptions`]: everything that decides how a reward model is trained.

use serde::{Deserialize, Serialize};

use super::AdamW;
use crate::model::METRIC_SLOTS;
use crate::{Error, Result};

/// How a reward model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardOptions {
    /// Seeds the data order and the starting weights.
    pub seed: u64,
    /// Packed tokens of one micro-batch: the plans are built for this many.
    pub batch_tokens: usize,
    /// Micro-batches of one update.
    pub accumulation: usize,
    /// Updates of next-token prediction on the training texts before the first comparison.
    pub pretrain_steps: u64,
    /// Updates on comparisons.
    pub steps: u64,
    /// Highest learning rate on comparisons.
    pub learning_rate: f64,
    /// Highest learning rate of the language pretraining.
    pub pretrain_learning_rate: f64,
    /// The share of each phase that warms up.
    pub warmup: f64,
    /// The last learning rate of a phase, as a share of the highest.
    pub floor: f64,
    /// The optimiser's constants.
    pub optimizer: AdamW,
    /// Assumed rate of wrong labels: the loss is `-(1-s) log σ(d) - s log σ(-d)`.
    pub label_smoothing: f32,
    /// Factor of `(r_chosen + r_rejected)²`, which keeps rewards near zero (Eisenstein et al.
    /// 2023, arXiv 2312.09244, section 2; TRL's `center_rewards_coefficient`).
    pub center_rewards_coefficient: f32,
    /// Updates between evaluations on the validation records; 0: never.
    pub evaluate_every: u64,
    /// Evaluations without a lower validation loss before training stops; 0: never stops.
    pub patience: u64,
    /// Updates between two readings of the metrics.
    pub read_every: u64,
}

impl Default for RewardOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            batch_tokens: 2048,
            accumulation: 1,
            pretrain_steps: 0,
            steps: 500,
            learning_rate: 3e-4,
            pretrain_learning_rate: 1e-3,
            warmup: 0.1,
            floor: 0.1,
            optimizer: AdamW::default(),
            label_smoothing: 0.0,
            center_rewards_coefficient: 0.0,
            evaluate_every: 50,
            patience: 4,
            read_every: 10,
        }
    }
}

impl RewardOptions {
    /// Checks what would otherwise train something else than was meant.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub fn validate(&self) -> Result<()> {
        let wrong = if self.batch_tokens == 0 {
            "batch_tokens is 0"
        } else if self.accumulation == 0 {
            "accumulation is 0"
        } else if self.accumulation > METRIC_SLOTS {
            "accumulation is over 256, the micro-batches whose metrics one update can keep"
        } else if self.read_every == 0 {
            "read_every is 0"
        } else if !(0.0..=0.5).contains(&self.label_smoothing) {
            "label_smoothing must lie in [0, 0.5]"
        } else if !(0.0..=1.0).contains(&self.warmup) {
            "warmup is a share of the steps: it must lie in [0, 1]"
        } else if !self.learning_rate.is_finite() || self.learning_rate < 0.0 {
            "learning_rate must be finite and not negative"
        } else {
            return Ok(());
        };
        Err(Error::shape("reward options", wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_micro_batches_than_the_ring_of_metrics_holds_are_refused() {
        let options = |accumulation| RewardOptions {
            accumulation,
            ..RewardOptions::default()
        };
        assert!(options(METRIC_SLOTS).validate().is_ok());
        let error = options(METRIC_SLOTS + 1)
            .validate()
            .unwrap_err()
            .to_string();
        assert!(error.contains("accumulation"), "{error}");
    }
}
