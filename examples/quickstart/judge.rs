//! [`Judge`]: what became of a writer, by questions that no training saw.

use anyhow::Result;
use prefgrad::data::{PackOptions, Targets, TokenRecord, pack_all};
use prefgrad::model::{
    Completion, Generator, GeneratorCapacity, Head, Parameters, Policy, Purpose, model_parameters,
};
use prefgrad::train::{AnswerLogprobs, Reward, RewardEnsemble, Sample};

use crate::setup::{ANSWER, Setup};

/// Answers to each fresh question.
const SAMPLES: usize = 16;
/// Seeds of the judge's own sampling, so that two measurements differ by the writer alone.
const SEED: u64 = 0xf4e5;

/// A writer, measured.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// The true preference: mean and standard deviation over answers.
    pub gold: f64,
    /// Its standard deviation.
    pub gold_deviation: f64,
    /// Mean of the learned reward.
    pub proxy: f64,
    /// Its standard deviation.
    pub proxy_deviation: f64,
    /// Divergence from the start, in nats an answer.
    pub kl: f64,
    /// Mean tokens of an answer.
    pub length: f64,
    /// Some questions with their answers and what they are truly worth.
    pub samples: Vec<(String, String, f64)>,
}

impl Measured {
    /// How far the true preference rose, in standard deviations of the start.
    pub fn gold_rise(&self, start: &Self) -> f64 {
        (self.gold - start.gold) / start.gold_deviation
    }
}

/// Lets a writer answer fresh questions.
pub struct Judge {
    weights: Parameters,
    generator: Generator,
    start: AnswerLogprobs,
    prompts: Vec<Vec<u32>>,
}

impl Judge {
    /// A judge that measures divergence from `start`.
    pub fn new(setup: &Setup, start: &Policy) -> Result<Self> {
        let specs = model_parameters(&setup.config, &[Head::Language]);
        let weights = Parameters::allocate(&setup.gpu, specs, Purpose::Score)?;
        let prompts = setup.prompts(&setup.fresh)?;
        let capacity = GeneratorCapacity {
            prompt_tokens: prompts.iter().map(Vec::len).sum(),
            prompts: prompts.len(),
            sequences: prompts.len() * SAMPLES,
            new_tokens: ANSWER,
        };
        Ok(Self {
            generator: Generator::new(&setup.gpu, &setup.config, &weights, capacity)?,
            start: AnswerLogprobs::new(start)?,
            weights,
            prompts,
        })
    }

    /// The weights of the writer that was measured last.
    pub fn weights(&self) -> &Parameters {
        &self.weights
    }

    /// Measures the writer of these weights.
    pub fn measure(
        &mut self,
        setup: &Setup,
        start: &Policy,
        weights: &Parameters,
        reward: &mut RewardEnsemble,
    ) -> Result<Measured> {
        self.weights.copy_common(&setup.gpu, weights)?;
        let options = setup.sampling(SEED);
        let answers = self.generator.generate(&self.prompts, SAMPLES, &options)?;
        let gold = answers
            .iter()
            .map(|answer| setup.gold(&answer.tokens, answer.finish))
            .collect::<Result<Vec<f64>>>()?;
        let samples: Vec<Sample<'_>> = answers
            .iter()
            .map(|answer| Sample {
                prompt: &self.prompts[answer.prompt],
                completion: &answer.tokens,
                finish: answer.finish,
            })
            .collect();
        let proxy: Vec<f64> = reward
            .rewards(&samples)?
            .into_iter()
            .map(f64::from)
            .collect();
        let (gold_mean, gold_deviation) = mean_and_deviation(&gold);
        let (proxy_mean, proxy_deviation) = mean_and_deviation(&proxy);
        let tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
        let shown = answers.iter().zip(&gold).step_by(SAMPLES).take(6);
        Ok(Measured {
            gold: gold_mean,
            gold_deviation,
            proxy: proxy_mean,
            proxy_deviation,
            kl: self.divergence(start, &answers)?,
            length: tokens as f64 / answers.len() as f64,
            samples: shown
                .map(|(answer, &gold)| {
                    let question = setup.fresh[answer.prompt].text();
                    Ok((
                        question.trim().to_owned(),
                        setup.text(&answer.tokens)?,
                        gold,
                    ))
                })
                .collect::<Result<_>>()?,
        })
    }

    /// The mean of `ln p - ln p_start` over answers drawn from p.
    fn divergence(&self, start: &Policy, answers: &[Completion]) -> Result<f64> {
        let records: Vec<TokenRecord> = answers
            .chunks(SAMPLES)
            .map(|group| TokenRecord {
                line: group[0].prompt + 1,
                prompt: self.prompts[group[0].prompt].clone(),
                answers: group.iter().map(|answer| answer.tokens.clone()).collect(),
                preferences: Vec::new(),
            })
            .collect();
        let options = PackOptions {
            with_pairs: false,
            targets: Targets::Answers,
            ..PackOptions::default()
        };
        let mut before = 0.0;
        for batch in pack_all(&records, start.batch().capacity, options)? {
            let sums = self.start.of_answers(start, &batch)?;
            before += sums.into_iter().map(f64::from).sum::<f64>();
        }
        let now = answers.iter().flat_map(|answer| &answer.logprobs);
        let now: f64 = now.map(|&logprob| f64::from(logprob)).sum();
        Ok((now - before) / answers.len() as f64)
    }
}

/// Mean and unbiased standard deviation.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}
