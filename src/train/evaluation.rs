//! [`Evaluation`]: how well rewards agree with people's preferences.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::{PackOptions, TokenRecord, pack_all};
use crate::model::RewardModel;

/// Agreement of rewards with preferences.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Preferences looked at.
    pub pairs: usize,
    /// Preferences whose chosen answer has the strictly higher reward.
    pub correct: usize,
    /// Mean of `-log σ(r_chosen - r_rejected - margin)`, by weight.
    pub loss: f64,
    /// Mean of `r_chosen - r_rejected`.
    pub gap: f64,
}

impl Evaluation {
    /// The share of correct preferences; 0 without any.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.pairs.max(1) as f64
    }

    /// Compares each record's rewards with its preferences.
    pub fn of(records: &[TokenRecord], rewards: &[Vec<f32>]) -> Self {
        let mut sum = Self::default();
        let mut weights = 0.0;
        for (record, rewards) in records.iter().zip(rewards) {
            for preference in &record.preferences {
                let gap =
                    f64::from(rewards[preference.chosen]) - f64::from(rewards[preference.rejected]);
                let weight = f64::from(preference.weight);
                sum.pairs += 1;
                sum.correct += usize::from(gap > 0.0);
                sum.loss += weight * softplus(f64::from(preference.margin) - gap);
                sum.gap += gap;
                weights += weight;
            }
        }
        if sum.pairs > 0 {
            sum.gap /= sum.pairs as f64;
        }
        if weights > 0.0 {
            sum.loss /= weights;
        }
        sum
    }
}

/// `log(1 + exp(x))`, the negative log-sigmoid of `-x`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The reward of every response of every record, in their order.
///
/// # Errors
///
/// [`crate::Error::Data`] for a record that does not fit the model's capacity, and what the device
/// reports.
pub fn score_records(model: &RewardModel, records: &[TokenRecord]) -> Result<Vec<Vec<f32>>> {
    let options = PackOptions {
        pad_token_id: model.config().pad_token_id,
        with_pairs: false,
        ..PackOptions::default()
    };
    let mut all = Vec::with_capacity(records.len());
    for batch in pack_all(records, model.capacity(), options)? {
        let first = all.len();
        all.resize(first + batch.lines.len(), Vec::new());
        for (answer, reward) in batch.answers.iter().zip(model.rewards(&batch)?) {
            all[first + answer.record as usize].push(reward);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preference;

    #[test]
    fn ties_are_not_correct_and_the_loss_is_stable() {
        let record = |margin| TokenRecord {
            line: 1,
            prompt: vec![1],
            answers: vec![vec![2], vec![3]],
            preferences: vec![Preference {
                chosen: 0,
                rejected: 1,
                weight: 1.0,
                margin,
            }],
        };
        let records = [record(0.0), record(0.0), record(0.0)];
        let rewards = [vec![1.0, 1.0], vec![1e4, -1e4], vec![-1e4, 1e4]];
        let evaluation = Evaluation::of(&records, &rewards);
        assert_eq!((evaluation.pairs, evaluation.correct), (3, 1));
        let expected = (std::f64::consts::LN_2 + 2e4) / 3.0;
        assert!((evaluation.loss - expected).abs() < 1e-9);
    }
}
