//! What a run measures, update by update.

use serde::{Deserialize, Serialize};

use crate::kernels::METRICS;
use crate::{Error, Result};

/// What is being learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The language of the training texts.
    Language,
    /// The comparisons.
    Comparisons,
    /// Nothing: training is over.
    Done,
}

/// What one update did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// What was learnt.
    pub phase: Phase,
    /// The update within its phase, from 1.
    pub step: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean loss of the pairs, or of the next tokens.
    pub loss: f64,
    /// The share of pairs whose chosen answer has the strictly higher reward.
    pub accuracy: Option<f64>,
    /// Mean of `r_chosen - r_rejected`.
    pub gap: Option<f64>,
    /// Mean reward.
    pub reward_mean: Option<f64>,
    /// Packed tokens.
    pub tokens: usize,
    /// Tokens that separate sequences would have taken.
    pub tokens_without_sharing: usize,
}

/// What one reading of the metrics brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<Step = StepMetrics> {
    /// The updates since the last reading, in order.
    pub steps: Vec<Step>,
    /// The gradient norm of the last of them, before clipping.
    pub grad_norm: f32,
}

impl<Step> Default for Reading<Step> {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            grad_norm: 0.0,
        }
    }
}

/// A submitted update whose metrics have not been read.
pub(super) struct Pending {
    pub metrics: StepMetrics,
    pub slots: Vec<usize>,
    pub lines: Vec<usize>,
}

impl Pending {
    /// The update's figures, from the rows of the ring that its micro-batches wrote.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] where a loss or reward is not finite.
    pub fn complete(&self, rows: &[[f32; METRICS]]) -> Result<StepMetrics> {
        let sum = |column: usize| -> f64 {
            let values = self.slots.iter().map(|&slot| f64::from(rows[slot][column]));
            values.sum()
        };
        if sum(6) > 0.0 || !sum(0).is_finite() {
            return Err(self.not_finite("loss"));
        }
        let mut metrics = self.metrics.clone();
        metrics.loss = sum(0);
        if metrics.phase != Phase::Language {
            let pairs = sum(5).max(1.0);
            metrics.accuracy = Some(sum(1) / pairs);
            metrics.gap = Some(sum(2) / pairs);
            metrics.reward_mean = Some(sum(3) / (2.0 * pairs));
        }
        Ok(metrics)
    }

    pub fn not_finite(&self, what: &'static str) -> Error {
        Error::NonFinite {
            what,
            step: self.metrics.step,
            records: self.lines.clone(),
        }
    }
}
