//! [`RolloutOptions`]: what policies trained by sampling have in common.

use serde::{Deserialize, Serialize};

use super::{AdamW, KlOptions};
use crate::model::{ModelConfig, SamplingOptions};
use crate::{Error, Result};

/// How answers are sampled, and how the policy learns from them, whatever the algorithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutOptions {
    /// Seeds the order of prompts, the sampling and the order of minibatches.
    pub seed: u64,
    /// Rollouts in all; the learning rate's schedule runs over them.
    pub rollouts: u64,
    /// Prompts of one rollout.
    pub prompts: usize,
    /// Answers to each prompt.
    pub samples: usize,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// Divides the logits, in sampling and in every log-probability.
    pub temperature: f32,
    /// Samples among this many likeliest tokens; 0: all. Log-probabilities stay those of the whole
    /// distribution, so learning becomes off-policy.
    pub top_k: usize,
    /// Samples among the likeliest tokens of this probability in all; 1: all. As `top_k`.
    pub top_p: f32,
    /// Tokens that end an answer, usually the end-of-text token.
    pub stop_tokens: Vec<u32>,
    /// Taken off the reward of an answer that was cut at the limit; needs stop tokens.
    pub missing_eos_penalty: f32,
    /// Times the same answers are learnt from.
    pub epochs: usize,
    /// Updates of one epoch: so many parts of about equal numbers of prompts, which stay the same
    /// from epoch to epoch and come in another order.
    pub minibatches: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Rollouts over which the learning rate rises from 0.
    pub warmup: u64,
    /// The last learning rate, as a share of the highest.
    pub floor: f64,
    /// The optimiser's constants.
    pub optimizer: AdamW,
    /// How the policy is held to the reference.
    pub kl: KlOptions,
    /// Ends a rollout's epochs early once the policy is this many nats a token from the one that
    /// sampled.
    pub epoch_kl_limit: Option<f64>,
    /// Packed tokens of one micro-batch.
    pub batch_tokens: usize,
    /// Answers sampled at one time.
    pub sequences: usize,
    /// The most memory that logits may take.
    pub logits_bytes: u64,
}

impl Default for RolloutOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            rollouts: 100,
            prompts: 64,
            samples: 4,
            max_new_tokens: 64,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            stop_tokens: Vec::new(),
            missing_eos_penalty: 0.0,
            epochs: 2,
            minibatches: 2,
            learning_rate: 3e-5,
            warmup: 0,
            floor: 0.1,
            optimizer: AdamW {
                weight_decay: 0.0,
                ..AdamW::default()
            },
            kl: KlOptions::default(),
            epoch_kl_limit: None,
            batch_tokens: 2048,
            sequences: 64,
            logits_bytes: 64 << 20,
        }
    }
}

impl RolloutOptions {
    /// Checks what would otherwise train something else than was meant.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub fn validate(&self) -> Result<()> {
        let at_least_one = [
            ("prompts", self.prompts),
            ("samples", self.samples),
            ("max_new_tokens", self.max_new_tokens),
            ("epochs", self.epochs),
            ("minibatches", self.minibatches),
            ("batch_tokens", self.batch_tokens),
            ("sequences", self.sequences),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(Error::shape("policy options", format!("{name} is 0")));
        }
        self.sampling().validate()?;
        self.kl.validate()?;
        let wrong = if self.minibatches > self.prompts {
            "minibatches is larger than prompts: the answers to a prompt are learnt from together"
        } else if !(self.learning_rate.is_finite() && self.learning_rate >= 0.0) {
            "learning_rate must be finite and not negative"
        } else if !(0.0..=1.0).contains(&self.floor) {
            "floor must lie between 0 and 1: it is a share of learning_rate"
        } else if !self.missing_eos_penalty.is_finite() {
            "missing_eos_penalty must be finite"
        } else if self.missing_eos_penalty != 0.0 && self.stop_tokens.is_empty() {
            "missing_eos_penalty needs stop_tokens: without, no answer ends by itself"
        } else if self
            .epoch_kl_limit
            .is_some_and(|limit| limit.is_nan() || limit <= 0.0)
        {
            "epoch_kl_limit must be positive"
        } else {
            return Ok(());
        };
        Err(Error::shape("policy options", wrong))
    }

    /// Checks prompts and stop tokens against the model; the longest prompt's tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] names the prompt, counted from 1; [`Error::Shape`] the stop token.
    pub(super) fn check_prompts(
        &self,
        prompts: &[Vec<u32>],
        config: &ModelConfig,
    ) -> Result<usize> {
        let vocabulary = config.vocab_size;
        let is_unknown = |token: &&u32| **token as usize >= vocabulary;
        if let Some(token) = self.stop_tokens.iter().find(is_unknown) {
            let detail = format!("stop_tokens has {token}, the vocabulary ends at {vocabulary}");
            return Err(Error::shape("policy options", detail));
        }
        let (context, answer) = (config.max_position_embeddings, self.max_new_tokens);
        let fault = |prompt: &[u32]| match prompt.iter().find(is_unknown) {
            Some(token) => Some(format!(
                "token {token} is outside the vocabulary of {vocabulary}"
            )),
            None if prompt.is_empty() => Some("it has no tokens".to_owned()),
            None if prompt.len() + answer > context => Some(format!(
                "{} tokens and an answer of up to {answer} exceed the model's context of {context}: \
                 shorten it, or lower max_new_tokens",
                prompt.len()
            )),
            None => None,
        };
        for (index, prompt) in prompts.iter().enumerate() {
            if let Some(detail) = fault(prompt) {
                return Err(Error::Data {
                    place: format!("prompt {}", index + 1),
                    detail,
                });
            }
        }
        let longest = prompts.iter().map(Vec::len).max();
        longest.ok_or_else(|| Error::Data {
            place: "prompts".into(),
            detail: "there are none".into(),
        })
    }

    /// How tokens are drawn.
    pub fn sampling(&self) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            greedy: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(name: &str, change: impl Fn(&mut RolloutOptions)) {
        let mut options = RolloutOptions::default();
        change(&mut options);
        let error = options.validate().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        assert!(RolloutOptions::default().validate().is_ok());
        refused("samples", |o| o.samples = 0);
        refused("temperature", |o| o.temperature = 0.0);
        refused("top_p", |o| o.top_p = 1.5);
        refused("minibatches", |o| o.minibatches = o.prompts + 1);
        refused("missing_eos_penalty", |o| o.missing_eos_penalty = 1.0);
        refused("epoch_kl_limit", |o| o.epoch_kl_limit = Some(f64::NAN));
        refused("floor", |o| o.floor = f64::NAN);
        refused("kl.coef", |o| o.kl.coef = -1.0);
    }
}
