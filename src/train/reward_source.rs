//! [`Reward`]: what judges a policy's answers, be it reward models, a rule or a person.

use super::score_records;
use crate::data::TokenRecord;
use crate::model::{Finish, RewardModel};
use crate::{Error, Result};

/// An answer that a policy gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Token ids of the prompt.
    pub prompt: &'a [u32],
    /// Token ids of the answer, with the stop token that ended it.
    pub completion: &'a [u32],
    /// Why it ended.
    pub finish: Finish,
}

/// Gives each answer a number that the policy is to raise.
///
/// Implemented for closures, so that a rule is one line:
///
/// ```
/// use prefgrad::train::{Reward, Sample};
///
/// let mut short = |samples: &[Sample<'_>]| {
///     Ok(samples.iter().map(|s| -(s.completion.len() as f32)).collect())
/// };
/// let reward: &mut dyn Reward = &mut short;
/// ```
pub trait Reward {
    /// The rewards of `samples`, in their order.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from judging.
    fn rewards(&mut self, samples: &[Sample<'_>]) -> Result<Vec<f32>>;
}

impl<F: FnMut(&[Sample<'_>]) -> Result<Vec<f32>>> Reward for F {
    fn rewards(&mut self, samples: &[Sample<'_>]) -> Result<Vec<f32>> {
        self(samples)
    }
}

/// The rewards of one or several reward models that read the policy's own tokens.
///
/// With several, the reward is their mean less `pessimism` standard deviations: where they
/// disagree, none of them has seen anything like it, and a policy is not to go there (Coste et al.
/// 2023, arXiv 2310.02743, section 4.1: uncertainty-weighted optimisation).
pub struct RewardEnsemble {
    models: Vec<RewardModel>,
    pessimism: f32,
    spread: f64,
}

impl RewardEnsemble {
    /// An ensemble of at least one model.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] without models, or for a negative or infinite `pessimism`.
    pub fn new(models: Vec<RewardModel>, pessimism: f32) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::shape("reward ensemble", "it has no models"));
        }
        if !(pessimism.is_finite() && pessimism >= 0.0) {
            let detail = format!("pessimism is {pessimism}, expected 0 or more");
            return Err(Error::shape("reward ensemble", detail));
        }
        Ok(Self {
            models,
            pessimism,
            spread: 0.0,
        })
    }

    /// The models.
    pub fn models(&self) -> &[RewardModel] {
        &self.models
    }

    /// The mean over the answers judged last of the standard deviation between models: how far
    /// they disagree. 0 for a single model.
    pub fn spread(&self) -> f64 {
        self.spread
    }
}

impl Reward for RewardEnsemble {
    fn rewards(&mut self, samples: &[Sample<'_>]) -> Result<Vec<f32>> {
        let records: Vec<TokenRecord> = samples
            .iter()
            .enumerate()
            .map(|(index, sample)| TokenRecord {
                line: index + 1,
                prompt: sample.prompt.to_vec(),
                answers: vec![sample.completion.to_vec()],
                preferences: Vec::new(),
            })
            .collect();
        let by_model = self
            .models
            .iter()
            .map(|model| Ok(score_records(model, &records)?.concat()))
            .collect::<Result<Vec<Vec<f32>>>>()?;
        let mut spread = 0.0;
        let rewards = (0..samples.len())
            .map(|answer| {
                let votes = by_model.iter().map(|rewards| f64::from(rewards[answer]));
                let (mean, deviation) = mean_and_deviation(votes);
                spread += deviation;
                (mean - f64::from(self.pessimism) * deviation) as f32
            })
            .collect();
        self.spread = spread / samples.len().max(1) as f64;
        Ok(rewards)
    }
}

/// Mean and unbiased standard deviation; a single value deviates by 0.
pub(super) fn mean_and_deviation(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count();
    let mean = values.clone().sum::<f64>() / count.max(1) as f64;
    if count < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1) as f64).sqrt())
}

/// Asks `reward` for its judgement and checks that it is one.
///
/// # Errors
///
/// [`Error::Shape`] for another number of rewards than answers, [`Error::NonFinite`] for one that
/// is infinite or not a number.
pub(super) fn judge(
    reward: &mut dyn Reward,
    samples: &[Sample<'_>],
    step: u64,
) -> Result<Vec<f32>> {
    let rewards = reward.rewards(samples)?;
    if rewards.len() != samples.len() {
        let detail = format!("{} rewards for {} answers", rewards.len(), samples.len());
        return Err(Error::shape("reward", detail));
    }
    let broken = |(index, reward): (usize, &f32)| (!reward.is_finite()).then_some(index + 1);
    let records: Vec<usize> = rewards.iter().enumerate().filter_map(broken).collect();
    match records.is_empty() {
        true => Ok(rewards),
        false => Err(Error::NonFinite {
            what: "reward",
            step,
            records,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Sample<'static> = Sample {
        prompt: &[1],
        completion: &[2, 3],
        finish: Finish::Stop,
    };

    #[test]
    fn a_reward_that_is_no_number_is_named() {
        let mut broken = |_: &[Sample<'_>]| Ok(vec![1.0, f32::NAN, f32::INFINITY]);
        let error = judge(&mut broken, &[ANSWER; 3], 7).unwrap_err().to_string();
        assert!(
            error.contains("reward") && error.contains("[2, 3]"),
            "{error}"
        );
        assert!(error.contains("step 7"), "{error}");
    }

    #[test]
    fn a_reward_for_each_answer_is_asked_for() {
        let mut one = |_: &[Sample<'_>]| Ok(vec![1.0]);
        assert!(judge(&mut one, &[ANSWER; 2], 1).is_err());
        assert_eq!(judge(&mut one, &[ANSWER], 1).unwrap(), [1.0]);
    }

    #[test]
    fn deviations_are_unbiased() {
        let (mean, deviation) = mean_and_deviation([1.0, 2.0, 4.0].into_iter());
        assert!((mean - 7.0 / 3.0).abs() < 1e-12);
        assert!((deviation - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_deviation([5.0].into_iter()), (5.0, 0.0));
    }
}
