//! How tokens are chosen, and what comes out.

use crate::{Error, Result};

const OP: &str = "generation";

/// The lowest temperature: below, logits that differ by 1 already differ by more than `f32` can
/// tell from certainty.
const MIN_TEMPERATURE: f32 = 1e-4;

/// How a token is drawn from a row of logits.
///
/// In this order, as in `transformers`: logits are divided by `temperature`; the `top_k` largest
/// are kept; of their probabilities, renormalised, the smallest set of largest ones that sums to
/// `top_p`. What ties with the last one kept is kept too, and at least one token always is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits: 1 samples from the model's own distribution.
    pub temperature: f32,
    /// How many of the likeliest tokens are kept; 0, or more than there are: all.
    pub top_k: usize,
    /// How much of the probability is kept, in (0, 1]; 1: all.
    pub top_p: f32,
    /// Takes the likeliest token, the first of equals, and draws nothing.
    pub greedy: bool,
}

impl Default for SamplingOptions {
    /// The model's own distribution.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            greedy: false,
        }
    }
}

impl SamplingOptions {
    /// The likeliest token at each step.
    pub fn greedy() -> Self {
        Self {
            greedy: true,
            ..Self::default()
        }
    }

    /// Whether tokens come from another distribution than the one log-probabilities are of.
    pub fn truncates(&self) -> bool {
        self.greedy || self.top_k > 0 || self.top_p < 1.0
    }

    /// Checks that the options describe a distribution.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub fn validate(&self) -> Result<()> {
        let temperature = self.temperature;
        if !temperature.is_finite() || temperature < MIN_TEMPERATURE {
            return Err(Error::shape(
                OP,
                format!(
                    "temperature is {temperature}: it must be at least {MIN_TEMPERATURE}; for the \
                     likeliest token set greedy"
                ),
            ));
        }
        let top_p = self.top_p;
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::shape(
                OP,
                format!("top_p is {top_p}: it must lie in (0, 1], where 1 keeps every token"),
            ));
        }
        Ok(())
    }
}

/// What a call of [`Generator::generate`](super::Generator::generate) should do.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// How tokens are drawn.
    pub sampling: SamplingOptions,
    /// Tokens of a response at most.
    pub max_new_tokens: usize,
    /// Tokens that end a response; empty: every response runs to the limit.
    pub stop_tokens: Vec<u32>,
    /// Chooses the random numbers. On one device the same seed, sequence and prompt give the same
    /// tokens, whatever else is generated beside them.
    pub seed: u64,
}

impl GenerateOptions {
    /// Checks the options against a model's vocabulary.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub(super) fn validate(&self, vocabulary: usize, new_tokens: usize) -> Result<()> {
        self.sampling.validate()?;
        let limit = self.max_new_tokens;
        if limit == 0 {
            return Err(Error::shape(OP, "max_new_tokens is 0"));
        }
        if limit > new_tokens {
            return Err(Error::shape(
                OP,
                format!("max_new_tokens is {limit}, the generator was made for {new_tokens}"),
            ));
        }
        let outside = |token: &&u32| **token as usize >= vocabulary;
        if let Some(token) = self.stop_tokens.iter().find(outside) {
            return Err(Error::shape(
                OP,
                format!("stop_tokens has {token}, the vocabulary ends at {vocabulary}"),
            ));
        }
        Ok(())
    }
}

/// A prompt and how many responses it should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The prompt's tokens, at least one.
    pub prompt: &'a [u32],
    /// Responses to draw.
    pub samples: usize,
    /// The number of the first response's sequence; the others follow. With the seed it chooses
    /// the random numbers.
    pub first_sequence: u64,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Its last token is a stop token.
    Stop,
    /// It reached the limit.
    Length,
}

/// A response.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The prompt's index.
    pub prompt: usize,
    /// Which of the prompt's responses.
    pub sample: usize,
    /// The tokens, a stop token included.
    pub tokens: Vec<u32>,
    /// The log-probability of each token under the whole vocabulary at the sampling temperature.
    pub logprobs: Vec<f32>,
    /// The same under the distribution it was drawn from: after top-k and top-p; 0 where greedy.
    pub sampling_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> GenerateOptions {
        GenerateOptions {
            sampling: SamplingOptions::default(),
            max_new_tokens: 8,
            stop_tokens: vec![9],
            seed: 0,
        }
    }

    #[track_caller]
    fn refused(name: &str, change: impl Fn(&mut GenerateOptions)) {
        let mut options = options();
        change(&mut options);
        let error = options.validate(10, 8).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        assert!(options().validate(10, 8).is_ok());
        for temperature in [0.0, -1.0, 1e-6, f32::NAN, f32::INFINITY] {
            refused("temperature", |o| o.sampling.temperature = temperature);
        }
        for top_p in [0.0, -0.5, 1.5, f32::NAN] {
            refused("top_p", |o| o.sampling.top_p = top_p);
        }
        refused("max_new_tokens", |o| o.max_new_tokens = 0);
        refused("max_new_tokens", |o| o.max_new_tokens = 9);
        refused("stop_tokens", |o| o.stop_tokens.push(10));
    }

    #[test]
    fn what_truncates_is_told_from_what_does_not() {
        assert!(!SamplingOptions::default().truncates());
        assert!(SamplingOptions::greedy().truncates());
        let top_p = SamplingOptions {
            top_p: 0.9,
            ..SamplingOptions::default()
        };
        assert!(top_p.truncates());
    }
}
