//! [`DpoTrainer`]: direct preference optimisation, from comparisons to a policy without a reward
//! model (Rafailov et al. 2023, arXiv 2305.18290, and the relatives of [`DpoLoss`]).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dpo_pairs::{Reference, Source, pairs_of, pick};
use super::dpo_step::{DpoEvaluation, DpoStep};
use super::feeder::MicroBatch;
use super::logprobs::AnswerLogprobs;
use super::metrics::Reading;
use super::tuning::{BestLoss, Split, TuningOptions, TuningRun, Update, read_saved};
use super::{AdamW, Optimizer};
use crate::data::{PackOptions, Targets, TokenRecord};
use crate::gpu::{Gpu, Plan, Tensor, all_ready};
use crate::kernels::policy::dpo_loss::{DpoLoss, DpoLossIo, DpoLossOptions, dpo_loss};
use crate::kernels::policy::{DpoMetrics, POLICY_METRICS};
use crate::model::{METRIC_SLOTS, ModelConfig, Policy};
use crate::{Error, Result};

/// How a policy is trained on preferences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpoOptions {
    /// Batches, updates and evaluations.
    pub tuning: TuningOptions,
    /// Which loss.
    pub loss: DpoLoss,
    /// How strongly the policy is held near the reference, above 0.
    pub beta: f32,
    /// Probability with which a label is assumed to be wrong, in `[0, 0.5)`; 0 for losses that
    /// know none.
    pub label_smoothing: f32,
}

impl Default for DpoOptions {
    fn default() -> Self {
        let loss = DpoLossOptions::default();
        Self {
            tuning: TuningOptions {
                learning_rate: 3e-5,
                optimizer: AdamW {
                    weight_decay: 0.0,
                    ..AdamW::default()
                },
                ..TuningOptions::default()
            },
            loss: loss.loss,
            beta: loss.beta,
            label_smoothing: loss.label_smoothing,
        }
    }
}

/// What a checkpoint holds beside the run.
#[derive(Debug, Serialize, Deserialize)]
struct Own {
    options: DpoOptions,
    /// Of the training and the validation pairs, as bits; empty before they were computed.
    reference: [Vec<[u32; 2]>; 2],
}

/// Trains a policy on preferences.
///
/// The reference is the policy before the first update: its log-probabilities of all answers are
/// computed once, and no second model is kept.
pub struct DpoTrainer {
    run: TuningRun,
    options: DpoOptions,
    /// Of the training and of the validation pairs.
    sources: [Vec<Source>; 2],
    /// Likewise; empty until they are known.
    reference: [Reference; 2],
    plans: Plans,
    logprobs: AnswerLogprobs,
}

/// The recorded passes and what they share.
struct Plans {
    /// Forward, loss and backward of a micro-batch.
    learn: Plan,
    /// Forward and loss of a validation batch.
    judge: Plan,
    /// (2P): the reference's log-probabilities of a batch's answers.
    ref_logps: Tensor,
    /// (METRIC_SLOTS, POLICY_METRICS), of training.
    learnt: Tensor,
    /// (1, POLICY_METRICS), of validation.
    judged: Tensor,
}

impl DpoTrainer {
    /// A run over records, whose prompts must end at a
    /// [`Boundary::Prompt`](crate::data::Boundary::Prompt); a ranking is learnt as its pairs. The
    /// policy starts from random weights of the options' seed: load those of a fine-tuned model
    /// into [`DpoTrainer::policy`]'s parameters before anything else.
    ///
    /// `validation` serves early stopping and must share no prompt with `train`.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] without pairs, for a record without a prompt and one that no batch holds,
    /// [`Error::Shape`] for options that cannot be meant, and what the model refuses.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: DpoOptions,
        train: &[TokenRecord],
        validation: &[TokenRecord],
    ) -> Result<Self> {
        let (train, of_train) = pairs_of(train)?;
        let (validation, of_validation) = pairs_of(validation)?;
        let packing = PackOptions {
            pad_token_id: config.pad_token_id,
            targets: Targets::Answers,
            ..PackOptions::default()
        };
        let records = Split { train, validation };
        let run = TuningRun::new(gpu, config, options.tuning.clone(), packing, records)?;
        let plans = Plans::record(&run.policy, &options)?;
        let logprobs = AnswerLogprobs::new(&run.policy)?;
        let optimizer = run.optimizer.plan();
        all_ready([&plans.learn, &plans.judge, logprobs.plan(), optimizer])?;
        Ok(Self {
            plans,
            logprobs,
            run,
            options,
            sources: [of_train, of_validation],
            reference: Default::default(),
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
    pub fn options(&self) -> &DpoOptions {
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
    pub fn plans(&self) -> [(&'static str, &Plan); 2] {
        [("learn", &self.plans.learn), ("judge", &self.plans.judge)]
    }

    /// Makes the policy as it is now the reference: computes its log-probabilities of all answers.
    /// The first update does so by itself where it has not been done.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] names the records where one is not finite; what the device reports.
    pub fn prepare(&mut self) -> Result<()> {
        let records = &self.run.records;
        let train = self.reference_logprobs(&records.train)?;
        let validation = self.reference_logprobs(&records.validation)?;
        self.reference = [train, validation];
        Ok(())
    }

    /// Takes the reference's log-probabilities from the caller instead: the sum over the tokens of
    /// every response of every record that the trainer was made with, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where one is missing or not finite.
    pub fn set_reference(&mut self, train: &[Vec<f32>], validation: &[Vec<f32>]) -> Result<()> {
        let [of_train, of_validation] = &self.sources;
        self.reference = [pick(of_train, train)?, pick(of_validation, validation)?];
        Ok(())
    }

    fn prepare_once(&mut self) -> Result<()> {
        if self.reference[0].is_empty() {
            self.prepare()?;
        }
        Ok(())
    }

    fn reference_logprobs(&self, records: &[TokenRecord]) -> Result<Reference> {
        let mut reference = Vec::with_capacity(records.len());
        for batch in self.run.pack(records)? {
            let sums = self.logprobs.of_answers(&self.run.policy, &batch)?;
            reference.extend_from_slice(sums.as_chunks::<2>().0);
        }
        let pairs = records.iter().zip(&reference);
        let wrong = pairs.filter(|(_, pair)| !pair.iter().all(|logprob| logprob.is_finite()));
        let lines: Vec<usize> = wrong.map(|(record, _)| record.line).collect();
        if lines.is_empty() {
            return Ok(reference);
        }
        Err(Error::NonFinite {
            what: "reference log-probability",
            step: self.run.step(),
            records: lines,
        })
    }

    /// Makes one update, and reads the metrics when it is time to: raises the probability of
    /// chosen answers against that of rejected ones, each relative to the reference.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] names the update and the records where a loss or gradient is not
    /// finite; the weights are then as they were before it. What the device reports.
    pub fn step(&mut self) -> Result<Option<Reading<DpoStep>>> {
        if self.run.is_over() {
            return Ok(None);
        }
        self.prepare_once()?;
        let fed = self.run.feed()?;
        for micro in &fed {
            self.upload(&self.reference[0], micro)?;
            self.plans.learn.submit();
        }
        if self.run.update(&fed)? {
            self.read().map(Some)
        } else {
            Ok(None)
        }
    }

    fn upload(&self, reference: &Reference, micro: &MicroBatch) -> Result<()> {
        let policy = &self.run.policy;
        let pairs = micro.records.iter();
        let logprobs: Vec<f32> = pairs.flat_map(|&pair| reference[pair]).collect();
        self.plans.ref_logps.write(policy.gpu(), &logprobs)?;
        policy.batch().upload(policy.gpu(), &micro.batch)
    }

    /// Reads the metrics of the updates since the last reading; waits for the device.
    ///
    /// # Errors
    ///
    /// As [`DpoTrainer::step`].
    pub fn read(&mut self) -> Result<Reading<DpoStep>> {
        let beta = f64::from(self.options.beta);
        let describe = |update: &Update, rows: &[&[f32]]| {
            let metrics = merged(rows)?;
            let step = DpoStep {
                step: update.step,
                learning_rate: update.learning_rate,
                tokens: update.tokens,
                tokens_without_sharing: update.tokens_without_sharing,
                ..DpoStep::default()
            };
            Some(step.measured(&metrics, beta))
        };
        self.run.read(&self.plans.learnt, describe)
    }

    /// Whether the options ask for an evaluation after the update just made.
    pub fn evaluation_is_due(&self) -> bool {
        self.run.evaluation_is_due()
    }

    /// Evaluates on the validation pairs. The weights are kept if the loss is the lowest so far;
    /// too many evaluations where it is not end training.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] where the loss is not finite; what the device reports.
    pub fn evaluate(&mut self) -> Result<DpoEvaluation> {
        self.prepare_once()?;
        let metrics = self.judge_validation()?;
        let beta = f64::from(self.options.beta);
        let step = DpoStep::default().measured(&metrics, beta);
        self.run.judge(step.loss)?;
        Ok(DpoEvaluation {
            pairs: step.pairs,
            loss: step.loss,
            accuracy: step.accuracy,
            margin: step.margin,
            chosen_shift: step.chosen_shift,
        })
    }

    fn judge_validation(&self) -> Result<DpoMetrics> {
        let preferences = self.run.records.validation.iter().map(|r| &r.preferences);
        let weights = preferences.flatten().map(|p| f64::from(p.weight));
        let scale = 1.0 / weights.sum::<f64>().max(f64::MIN_POSITIVE);
        let mut sum = DpoMetrics::default();
        let mut first = 0;
        for mut batch in self.run.validation_batches()? {
            batch.counts.pair_scale = scale as f32;
            let records = (first..first + batch.lines.len()).collect();
            first += batch.lines.len();
            let micro = MicroBatch { batch, records };
            self.upload(&self.reference[1], &micro)?;
            self.plans.judge.submit();
            let row: Vec<f32> = self.plans.judged.read(self.run.policy.gpu())?;
            let metrics = merged(&[&row]).ok_or_else(|| Error::NonFinite {
                what: "validation loss",
                step: self.run.step(),
                records: micro.batch.lines.clone(),
            })?;
            sum.merge(&metrics);
        }
        Ok(sum)
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
    /// [`Error::Io`], and what the device reports.
    pub fn save_checkpoint(&self, folder: &Path) -> Result<()> {
        let bits = |pairs: &Reference| pairs.iter().map(|p| p.map(f32::to_bits)).collect();
        let own = Own {
            options: self.options.clone(),
            reference: self.reference.each_ref().map(bits),
        };
        self.run.save(folder, own)
    }

    /// Goes on from a checkpoint, to the same bits as a run that never stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if it is damaged or was made with other records.
    pub fn resume(
        gpu: &Gpu,
        path: &Path,
        train: &[TokenRecord],
        validation: &[TokenRecord],
    ) -> Result<Self> {
        let saved = read_saved::<Own>(path)?;
        let options = saved.own.options.clone();
        let mut trainer = Self::new(gpu, &saved.config, options, train, validation)?;
        trainer.run.restore(path, &saved)?;
        let values = |pairs: &Vec<[u32; 2]>| pairs.iter().map(|p| p.map(f32::from_bits)).collect();
        trainer.reference = saved.own.reference.each_ref().map(values);
        Ok(trainer)
    }
}

impl Plans {
    fn record(policy: &Policy, options: &DpoOptions) -> Result<Self> {
        let (gpu, batch) = (policy.gpu(), policy.batch());
        let pairs = batch.capacity.pairs;
        let tensor = |label: &str, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape);
        let partials = tensor("loss partials", &[pairs, POLICY_METRICS])?;
        let ref_logps = tensor("reference logprobs", &[2 * pairs])?;
        let learnt = tensor("metrics", &[METRIC_SLOTS, POLICY_METRICS])?;
        let judged = tensor("validation metrics", &[1, POLICY_METRICS])?;
        let loss = DpoLossOptions {
            loss: options.loss,
            beta: options.beta,
            label_smoothing: options.label_smoothing,
            ..DpoLossOptions::default()
        };
        let forward_and_loss = |metrics: &Tensor| {
            let mut plan = Plan::new(gpu);
            policy.record_forward(&mut plan)?;
            let io = DpoLossIo {
                answer_lists: &batch.answer_lists.lists,
                answer_rows: &batch.answer_lists.rows,
                logprobs: policy.logprobs(),
                ref_logps: &ref_logps,
                pairs: &batch.pairs,
                gradients: policy.gradients(),
                partials: &partials,
                metrics,
                counts: Some(&batch.counts),
            };
            dpo_loss(&mut plan, &io, &loss)?;
            Ok::<Plan, Error>(plan)
        };
        let mut learn = forward_and_loss(&learnt)?;
        policy.record_head_backward(&mut learn)?;
        policy.record_trunk_backward(&mut learn)?;
        Ok(Self {
            learn,
            judge: forward_and_loss(&judged)?,
            ref_logps,
            learnt,
            judged,
        })
    }
}

/// What the micro-batches of an update measured together; `None` where they are not finite.
fn merged(rows: &[&[f32]]) -> Option<DpoMetrics> {
    let mut sum = DpoMetrics::default();
    for row in rows {
        sum.merge(&DpoMetrics::from_row(row.first_chunk()?));
    }
    (sum.loss.is_finite() && sum.non_finite == 0.0).then_some(sum)
}
