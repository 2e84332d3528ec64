//! [`SftTrainer`]: supervised fine-tuning, next-token prediction of answers that people wrote or
//! preferred (Ouyang et al. 2022, arXiv 2203.02155, section 3.5).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::feeder::MicroBatch;
use super::logprobs::AnswerLogprobs;
use super::metrics::Reading;
use super::tuning::{BestLoss, Split, TuningOptions, TuningRun, Update, read_saved};
use super::{AdamW, Optimizer};
use crate::Result;
use crate::data::{PackOptions, Targets, TokenRecord};
use crate::gpu::{Gpu, Plan, Tensor, all_ready};
use crate::kernels::METRICS;
use crate::model::{METRIC_SLOTS, ModelConfig, Policy};

/// How a policy is fine-tuned on answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SftOptions {
    /// Batches, updates and evaluations.
    pub tuning: TuningOptions,
    /// Learn from all responses, not only from those that nothing was preferred to.
    pub all_responses: bool,
    /// Learn prompts as well, not only answers.
    pub all_tokens: bool,
}

impl Default for SftOptions {
    fn default() -> Self {
        Self {
            tuning: TuningOptions {
                optimizer: AdamW {
                    weight_decay: 0.0,
                    ..AdamW::default()
                },
                ..TuningOptions::default()
            },
            all_responses: false,
            all_tokens: false,
        }
    }
}

/// What one update did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftStep {
    /// The update, from 1.
    pub step: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Mean negative log-probability of the tokens learnt, in nats.
    pub loss: f64,
    /// Tokens learnt.
    pub targets: u64,
    /// Packed tokens.
    pub tokens: usize,
    /// Tokens that separate sequences would have taken.
    pub tokens_without_sharing: usize,
}

/// Trains a policy to write such answers.
pub struct SftTrainer {
    run: TuningRun,
    options: SftOptions,
    /// Forward, loss and backward of a micro-batch.
    learn: Plan,
    logprobs: AnswerLogprobs,
    /// (METRIC_SLOTS, METRICS)
    metrics: Tensor,
}

impl SftTrainer {
    /// A run over records, whose prompts should end at a
    /// [`Boundary::Prompt`](crate::data::Boundary::Prompt). The policy starts from random weights
    /// of the options' seed; load others into [`SftTrainer::policy`]'s parameters.
    ///
    /// `validation` serves early stopping and must share no prompt with `train`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Data`] without training records or for one that no batch holds,
    /// [`crate::Error::Shape`] for options that cannot be meant, and what the model refuses.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: SftOptions,
        train: &[TokenRecord],
        validation: &[TokenRecord],
    ) -> Result<Self> {
        let learnt = |records: &[TokenRecord]| -> Vec<TokenRecord> {
            let learnt = records.iter();
            learnt
                .map(|record| learnt_from(record, options.all_responses))
                .collect()
        };
        let records = Split {
            train: learnt(train),
            validation: learnt(validation),
        };
        let packing = PackOptions {
            pad_token_id: config.pad_token_id,
            with_pairs: false,
            targets: if options.all_tokens {
                Targets::All
            } else {
                Targets::Answers
            },
            ..PackOptions::default()
        };
        let run = TuningRun::new(gpu, config, options.tuning.clone(), packing, records)?;
        let metrics = Tensor::zeros::<f32>(gpu, "metrics", &[METRIC_SLOTS, METRICS])?;
        let learn = record(&run.policy, &metrics)?;
        let logprobs = AnswerLogprobs::new(&run.policy)?;
        all_ready([&learn, logprobs.plan(), run.optimizer.plan()])?;
        Ok(Self {
            learn,
            logprobs,
            metrics,
            run,
            options,
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.run.policy
    }

    /// The recorded optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.run.optimizer
    }

    /// The run's options.
    pub fn options(&self) -> &SftOptions {
        &self.options
    }

    /// Updates made.
    pub fn updates(&self) -> u64 {
        self.run.step()
    }

    /// Whether all updates were made, or validation no longer gained.
    pub fn is_over(&self) -> bool {
        self.run.is_over()
    }

    /// The lowest validation loss so far.
    pub fn best(&self) -> Option<BestLoss> {
        self.run.best()
    }

    /// The recorded plans by name, for profiles.
    pub fn plans(&self) -> [(&'static str, &Plan); 1] {
        [("learn", &self.learn)]
    }

    /// Makes one update, and reads the metrics when it is time to.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NonFinite`] names the update and the records where a loss or gradient is
    /// not finite; the weights are then as they were before it. What the device reports.
    pub fn step(&mut self) -> Result<Option<Reading<SftStep>>> {
        if self.run.is_over() {
            return Ok(None);
        }
        let fed = self.run.feed()?;
        for MicroBatch { batch, .. } in &fed {
            let policy = &self.run.policy;
            policy.batch().upload(policy.gpu(), batch)?;
            self.learn.submit();
        }
        if self.run.update(&fed)? {
            self.read().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the metrics of the updates since the last reading; waits for the device.
    ///
    /// # Errors
    ///
    /// As [`SftTrainer::step`].
    pub fn read(&mut self) -> Result<Reading<SftStep>> {
        self.run.read(&self.metrics, describe)
    }

    /// Whether the options ask for an evaluation after the update just made.
    pub fn evaluation_is_due(&self) -> bool {
        self.run.evaluation_is_due()
    }

    /// The mean negative log-probability of the validation records' tokens, in nats. The weights
    /// are kept if it is the lowest so far; too many evaluations that are not end training.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn evaluate(&mut self) -> Result<f64> {
        let (mut loss, mut weights) = (0.0, 0.0);
        for batch in self.run.validation_batches()? {
            let logprobs = self.logprobs.of_targets(&self.run.policy, &batch)?;
            for (target, logprob) in batch.targets.iter().zip(logprobs) {
                loss -= f64::from(target.weight) * f64::from(logprob);
                weights += f64::from(target.weight);
            }
        }
        let loss = if weights > 0.0 { loss / weights } else { 0.0 };
        self.run.judge(loss)?;
        Ok(loss)
    }

    /// Ends training: the weights of the best evaluation, if there was one, become the policy's.
    ///
    /// # Errors
    ///
    /// As [`Tensor::write`].
    pub fn finish(&mut self) -> Result<()> {
        self.run.finish()
    }

    /// Writes a checkpoint into `folder`, whole or not at all; older ones are removed.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`], and what the device reports.
    pub fn save_checkpoint(&self, folder: &Path) -> Result<()> {
        self.run.save(folder, &self.options)
    }

    /// Goes on from a checkpoint, to the same bits as a run that never stopped.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Checkpoint`] if it is damaged or was made with other records.
    pub fn resume(
        gpu: &Gpu,
        path: &Path,
        train: &[TokenRecord],
        validation: &[TokenRecord],
    ) -> Result<Self> {
        let saved = read_saved::<SftOptions>(path)?;
        let mut trainer = Self::new(gpu, &saved.config, saved.own.clone(), train, validation)?;
        trainer.run.restore(path, &saved)?;
        Ok(trainer)
    }
}

/// The record with the responses that are learnt: those that nothing was preferred to, or all.
fn learnt_from(record: &TokenRecord, all: bool) -> TokenRecord {
    let rejected = |index: usize| record.preferences.iter().any(|p| p.rejected == index);
    let answers = record.answers.iter().enumerate();
    TokenRecord {
        line: record.line,
        prompt: record.prompt.clone(),
        answers: answers
            .filter(|&(index, _)| all || !rejected(index))
            .map(|(_, answer)| answer.clone())
            .collect(),
        preferences: Vec::new(),
    }
}

fn record(policy: &Policy, metrics: &Tensor) -> Result<Plan> {
    let (parameters, batch) = (policy.parameters(), policy.batch());
    let targets = batch.capacity.targets;
    let logprobs = Tensor::zeros::<f32>(policy.gpu(), "target logprobs", &[targets])?;
    let mut plan = Plan::new(policy.gpu());
    policy.trunk().forward(&mut plan, parameters, batch)?;
    let states = (policy.trunk(), batch);
    let head = policy.head();
    head.cross_entropy(&mut plan, parameters, states, &logprobs, metrics)?;
    policy.record_trunk_backward(&mut plan)?;
    Ok(plan)
}

/// The figures of an update, from the rows that
/// [`cross_entropy_statistics`](crate::kernels::nn::cross_entropy_statistics) wrote.
fn describe(update: &Update, rows: &[&[f32]]) -> Option<SftStep> {
    let sum = |column: usize| -> f64 { rows.iter().map(|row| f64::from(row[column])).sum() };
    let (loss, not_finite) = (sum(0), sum(6));
    (loss.is_finite() && not_finite == 0.0).then_some(SftStep {
        step: update.step,
        learning_rate: update.learning_rate,
        loss,
        targets: sum(1) as u64,
        tokens: update.tokens,
        tokens_without_sharing: update.tokens_without_sharing,
    })
}
