//! [`PolicyStep`]: what one rollout did, and [`Warning`]: what looks wrong about it.

use serde::{Deserialize, Serialize};

use super::reward_source::mean_and_deviation;
use super::rollout::Group;
use crate::kernels::policy::{POLICY_METRICS, PolicyMetrics, Response};

/// The figures of one rollout and of the updates made from it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PolicyStep {
    /// The rollout, from 1.
    pub rollout: u64,
    /// Optimiser updates made from it.
    pub updates: u64,
    /// Answers sampled.
    pub responses: usize,
    /// Tokens sampled.
    pub generated_tokens: usize,
    /// Tokens that went forward and backward, all epochs together.
    pub trained_tokens: usize,
    /// Mean reward, less `missing_eos_penalty` where it was due.
    pub reward_mean: f64,
    /// Unbiased standard deviation of these rewards.
    pub reward_deviation: f64,
    /// Mean over the answers of `Σ (logprob - ref_logprob)`, in nats: the KL divergence a response
    /// of the policy that sampled from the reference.
    pub kl: f64,
    /// The coefficient that this divergence was charged with.
    pub kl_coef: f64,
    /// Mean entropy of a token's distribution, in nats, in the first epoch.
    pub entropy: f64,
    /// Mean tokens of an answer.
    pub length: f64,
    /// The share of answers that ended by themselves.
    pub finished: f64,
    /// The share of groups whose answers all got the same reward, from which a group-relative
    /// advantage learns nothing.
    pub groups_without_spread: f64,
    /// Mean loss of the updates.
    pub loss: f64,
    /// Its policy term.
    pub policy_loss: f64,
    /// Its value term, before the coefficient; 0 without values.
    pub value_loss: f64,
    /// Mean over tokens of `(r - 1) - ln r`, r the ratio of new to old probability: how far the
    /// last epoch's policy is from the one that sampled.
    pub approx_kl: f64,
    /// The share of tokens, or of answers, whose ratio was clipped.
    pub clip_fraction: f64,
    /// Least and greatest ratio of new to old probability in the very first update: 1 and 1, or
    /// the log-probabilities of the two forward passes are not those of the same policy.
    pub first_ratio: [f64; 2],
    /// Least and greatest ratio of all updates.
    pub ratio: [f64; 2],
    /// Exponents that had to be clamped.
    pub clamped: u64,
    /// Gradient norm of the last update, before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
}

/// Something in a run that usually precedes its failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Warning {
    /// Old and new log-probabilities differ before anything was learnt.
    FirstRatio([f64; 2]),
    /// The policy is further from the reference than it was meant to be.
    KlAboveTarget {
        /// Nats a response.
        kl: f64,
        /// What was asked for.
        target: f64,
    },
    /// The policy hardly varies its answers any more.
    EntropyCollapse {
        /// Nats a token now.
        entropy: f64,
        /// Nats a token at the start.
        start: f64,
    },
    /// The reward rises while answers grow: they may be paid by length.
    LengthWithReward {
        /// Tokens an answer now.
        length: f64,
        /// Tokens an answer at the start.
        start: f64,
    },
    /// Most of what was sampled no longer counts.
    ClipFraction(f64),
    /// No answer ends by itself: they are cut where the limit is.
    NothingFinishes,
    /// All groups got one reward for all their answers: there is nothing to learn from.
    NoSpread,
    /// Answers are sampled from a truncated distribution, but learnt from as if from the whole.
    OffPolicySampling,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FirstRatio([low, high]) => write!(
                f,
                "the first ratio of new to old probability is {low} to {high}, not 1: sampling and \
                 training disagree about the policy"
            ),
            Self::KlAboveTarget { kl, target } => write!(
                f,
                "the divergence from the reference is {kl:.1} nats a response, {target:.1} was asked \
                 for: raise kl_coef or lower the learning rate"
            ),
            Self::EntropyCollapse { entropy, start } => write!(
                f,
                "entropy fell to {entropy:.3} nats a token from {start:.3}: the policy repeats \
                 itself; raise entropy_coef or kl_coef, or stop here"
            ),
            Self::LengthWithReward { length, start } => write!(
                f,
                "answers grew from {start:.0} to {length:.0} tokens as the reward rose: look at \
                 samples; the reward may pay for length"
            ),
            Self::ClipFraction(share) => write!(
                f,
                "{:.0} % of the ratios were clipped: lower the learning rate or the epochs",
                100.0 * share
            ),
            Self::NothingFinishes => write!(
                f,
                "no answer ended by itself: raise max_new_tokens, or check the stop token"
            ),
            Self::NoSpread => write!(
                f,
                "in every group all answers got the same reward: nothing can be learnt from it"
            ),
            Self::OffPolicySampling => write!(
                f,
                "top_k or top_p cut the distribution that answers are sampled from, while ratios \
                 and divergence are those of the whole: learning is off-policy"
            ),
        }
    }
}

/// Looks for signs of trouble over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    start: Option<PolicyStep>,
    kl_target: Option<f64>,
    relative: bool,
}

impl Health {
    /// A run that is steered towards `kl_target` nats a response; `relative` where advantages are
    /// relative to a group.
    pub fn new(kl_target: Option<f64>, relative: bool) -> Self {
        Self {
            start: None,
            kl_target,
            relative,
        }
    }

    /// Takes in a step and says what looks wrong.
    pub fn check(&mut self, step: &PolicyStep) -> Vec<Warning> {
        let start = self.start.get_or_insert_with(|| step.clone());
        let mut warnings = Vec::new();
        if step.first_ratio != [1.0, 1.0] && step.updates > 0 {
            warnings.push(Warning::FirstRatio(step.first_ratio));
        }
        if let Some(target) = self.kl_target
            && step.kl > 1.5 * target
        {
            let kl = step.kl;
            warnings.push(Warning::KlAboveTarget { kl, target });
        }
        if step.entropy < 0.1 * start.entropy {
            warnings.push(Warning::EntropyCollapse {
                entropy: step.entropy,
                start: start.entropy,
            });
        }
        let better = step.reward_mean > start.reward_mean + start.reward_deviation;
        if better && step.length > 1.5 * start.length {
            warnings.push(Warning::LengthWithReward {
                length: step.length,
                start: start.length,
            });
        }
        if step.clip_fraction > 0.3 {
            warnings.push(Warning::ClipFraction(step.clip_fraction));
        }
        if step.finished == 0.0 && start.finished > 0.0 {
            warnings.push(Warning::NothingFinishes);
        }
        if self.relative && step.groups_without_spread == 1.0 {
            warnings.push(Warning::NoSpread);
        }
        warnings
    }
}

/// The figures of several micro-batches together.
pub(super) fn merge(rows: &[[f32; POLICY_METRICS]]) -> PolicyMetrics {
    let mut sum = PolicyMetrics::default();
    for row in rows {
        sum.merge(&PolicyMetrics::from_row(row));
    }
    sum
}

/// What is known of a rollout before any update.
pub(super) fn describe(groups: &[Group], responses: &[Response]) -> PolicyStep {
    let scores = groups.iter().flat_map(|group| &group.scores);
    let (reward_mean, reward_deviation) = mean_and_deviation(scores.map(|&s| f64::from(s)));
    let answers = || groups.iter().flat_map(|group| &group.answers);
    let count = answers().count();
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    let tokens = answers().map(Vec::len).sum();
    let finished = groups.iter().flat_map(|group| &group.finished);
    let flat = groups.iter().filter(|group| {
        let first = group.scores.first();
        group.scores.iter().all(|score| Some(score) == first)
    });
    PolicyStep {
        responses: count,
        generated_tokens: tokens,
        reward_mean,
        reward_deviation,
        kl: responses.iter().map(|r| f64::from(r.kl)).sum::<f64>() / count.max(1) as f64,
        length: share(tokens, count),
        finished: share(finished.filter(|&&finished| finished).count(), count),
        groups_without_spread: share(flat.count(), groups.len()),
        ..PolicyStep::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut PolicyStep);

    fn healthy() -> PolicyStep {
        PolicyStep {
            updates: 4,
            reward_mean: 0.0,
            reward_deviation: 1.0,
            kl: 0.5,
            entropy: 1.0,
            length: 20.0,
            finished: 0.9,
            first_ratio: [1.0, 1.0],
            clip_fraction: 0.1,
            ..PolicyStep::default()
        }
    }

    fn after_start(step: PolicyStep) -> Vec<Warning> {
        let mut health = Health::new(Some(6.0), true);
        assert_eq!(health.check(&healthy()), []);
        health.check(&step)
    }

    #[test]
    fn each_sign_is_seen() {
        let cases: [(Change, &str); 7] = [
            (|s| s.first_ratio = [1.0, 1.0000001], "first ratio"),
            (|s| s.kl = 9.1, "divergence"),
            (|s| s.entropy = 0.09, "entropy"),
            (
                |s| {
                    s.reward_mean = 1.5;
                    s.length = 31.0;
                },
                "grew",
            ),
            (|s| s.clip_fraction = 0.31, "clipped"),
            (|s| s.finished = 0.0, "no answer ended"),
            (|s| s.groups_without_spread = 1.0, "same reward"),
        ];
        for (change, text) in cases {
            let mut step = healthy();
            change(&mut step);
            let warnings = after_start(step);
            assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
            assert!(warnings[0].to_string().contains(text), "{}", warnings[0]);
        }
    }

    #[test]
    fn longer_answers_alone_are_no_sign() {
        let mut step = healthy();
        step.length = 40.0;
        assert_eq!(after_start(step), []);
    }
}
