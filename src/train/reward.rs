//! [`RewardTrainer`]: from comparisons to a reward model.
//!
//! One update is one or more micro-batches of packed records: forward, loss and backward of each
//! add to the gradients, then the optimiser sweeps once. Metrics stay on the device and are read
//! every few updates.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, fingerprint};
use super::evaluation::{Evaluation, score_records};
use super::feeder::{Feeder, MicroBatch};
use super::metrics::{Pending, Phase, Reading, StepMetrics};
use super::{Optimizer, RewardOptions, Schedule};
use crate::data::{Capacity, DataOrder, PackOptions, Targets, TokenRecord};
use crate::gpu::{Gpu, all_ready};
use crate::kernels::preference::pairwise_loss::PairwiseLossOptions;
use crate::model::{METRIC_SLOTS, ModelConfig, RewardModel};
use crate::{Error, Result};

/// The best evaluation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After which update on comparisons.
    pub step: u64,
    /// The evaluation.
    pub evaluation: Evaluation,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    phase: Phase,
    /// Updates made in this phase.
    step: u64,
    order: DataOrder,
    best: Option<Best>,
    /// Evaluations since the best.
    without_gain: u64,
}

/// Everything of a run that a checkpoint has beside tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    options: RewardOptions,
    config: ModelConfig,
    state: State,
    /// Of the training records.
    fingerprint: u64,
    /// Kernels that give other bits on other devices: what this run used.
    variants: String,
}

/// Trains a reward model on comparisons.
pub struct RewardTrainer {
    model: RewardModel,
    optimizer: Optimizer,
    options: RewardOptions,
    train: Vec<TokenRecord>,
    validation: Vec<TokenRecord>,
    state: State,
    best_weights: Option<Vec<Vec<f32>>>,
    pending: Vec<Pending>,
    feeder: Feeder,
    skipped: u32,
}

/// How much fits into a micro-batch of `tokens` packed tokens.
pub fn capacity_for(tokens: usize, with_targets: bool) -> Capacity {
    let pairs = (tokens / 16).max(64);
    Capacity {
        tokens,
        segments: (tokens / 8).max(64),
        answers: 2 * pairs,
        pairs,
        targets: if with_targets { tokens } else { 0 },
    }
}

impl RewardTrainer {
    /// A new run: the model starts from random weights of the options' seed.
    ///
    /// `validation` serves early stopping and must share no prompt with `train`.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] without training records, and what the model refuses.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: RewardOptions,
        train: Vec<TokenRecord>,
        validation: Vec<TokenRecord>,
    ) -> Result<Self> {
        let phase = if options.pretrain_steps > 0 {
            Phase::Language
        } else {
            Phase::Comparisons
        };
        let state = State {
            phase,
            step: 0,
            order: DataOrder::new(options.seed, train.len()),
            best: None,
            without_gain: 0,
        };
        let trainer = Self::with_state(gpu, config, options, train, validation, state)?;
        trainer
            .model
            .parameters()
            .initialise(gpu, trainer.options.seed)?;
        Ok(trainer)
    }

    fn with_state(
        gpu: &Gpu,
        config: &ModelConfig,
        options: RewardOptions,
        train: Vec<TokenRecord>,
        validation: Vec<TokenRecord>,
        state: State,
    ) -> Result<Self> {
        options.validate()?;
        if train.is_empty() {
            return Err(Error::Data {
                place: "training records".into(),
                detail: "there are none".into(),
            });
        }
        let capacity = capacity_for(options.batch_tokens, options.pretrain_steps > 0);
        let feeder = Feeder::new(capacity, options.accumulation);
        let loss = PairwiseLossOptions {
            label_smoothing: options.label_smoothing,
            center_rewards_coefficient: options.center_rewards_coefficient,
            ..PairwiseLossOptions::default()
        };
        let model = RewardModel::to_train(gpu, config, capacity, &loss)?;
        let optimizer = Optimizer::new(gpu, model.parameters(), options.optimizer)?;
        let plans = model.plans().into_iter().map(|(_, plan)| plan);
        all_ready(plans.chain([optimizer.plan()]))?;
        Ok(Self {
            model,
            optimizer,
            options,
            train,
            validation,
            state,
            best_weights: None,
            pending: Vec::new(),
            feeder,
            skipped: 0,
        })
    }

    /// The model as it is now.
    pub fn model(&self) -> &RewardModel {
        &self.model
    }

    /// The recorded optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The run's options.
    pub fn options(&self) -> &RewardOptions {
        &self.options
    }

    /// What is being learnt.
    pub fn phase(&self) -> Phase {
        self.state.phase
    }

    /// Updates made in this phase.
    pub fn step_in_phase(&self) -> u64 {
        self.state.step
    }

    /// Updates made in all phases.
    pub fn updates(&self) -> u64 {
        match self.state.phase {
            Phase::Language => self.state.step,
            Phase::Comparisons | Phase::Done => self.options.pretrain_steps + self.state.step,
        }
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Best> {
        self.state.best
    }

    fn schedule(&self) -> Schedule {
        let (peak, total) = match self.state.phase {
            Phase::Language => (
                self.options.pretrain_learning_rate,
                self.options.pretrain_steps,
            ),
            Phase::Comparisons | Phase::Done => (self.options.learning_rate, self.options.steps),
        };
        Schedule {
            peak,
            floor: peak * self.options.floor,
            warmup: (total as f64 * self.options.warmup).round() as u64,
            total,
        }
    }

    /// Makes one update, and reads the metrics when it is time to.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] names the update and the records where a loss or gradient is not
    /// finite; the weights are then as they were before it. What the device reports.
    pub fn step(&mut self) -> Result<Option<Reading>> {
        if self.state.phase == Phase::Done {
            return Ok(None);
        }
        let batches = self.next_batches()?;
        let learning_rate = self.schedule().learning_rate(self.state.step);
        let mut pending = Pending {
            metrics: StepMetrics {
                phase: self.state.phase,
                step: self.state.step + 1,
                learning_rate,
                loss: 0.0,
                accuracy: None,
                gap: None,
                reward_mean: None,
                tokens: batches.iter().map(|b| b.batch.tokens.len()).sum(),
                tokens_without_sharing: batches
                    .iter()
                    .map(|b| b.batch.tokens_without_sharing)
                    .sum(),
            },
            slots: Vec::new(),
            lines: Vec::new(),
        };
        for MicroBatch { batch, .. } in &batches {
            match self.state.phase {
                Phase::Language => self.model.accumulate_language(batch)?,
                Phase::Comparisons | Phase::Done => self.model.accumulate(batch)?,
            }
            pending.slots.push(batch.counts.slot as usize);
            pending.lines.extend(&batch.lines);
        }
        self.optimizer.step(learning_rate)?;
        self.pending.push(pending);
        self.state.step += 1;
        let slots_left = METRIC_SLOTS - self.pending.iter().map(|p| p.slots.len()).sum::<usize>();
        let due = self.state.step.is_multiple_of(self.options.read_every);
        let reading = if due || slots_left < self.options.accumulation || self.phase_is_over() {
            Some(self.read()?)
        } else {
            None
        };
        self.end_phase()?;
        Ok(reading)
    }

    fn phase_is_over(&self) -> bool {
        match self.state.phase {
            Phase::Language => self.state.step >= self.options.pretrain_steps,
            Phase::Comparisons => self.state.step >= self.options.steps,
            Phase::Done => true,
        }
    }

    fn end_phase(&mut self) -> Result<()> {
        if !self.phase_is_over() {
            return Ok(());
        }
        match self.state.phase {
            Phase::Language => {
                self.state.phase = Phase::Comparisons;
                self.state.step = 0;
                self.model.parameters().reset_optimizer(self.model.gpu())?;
                self.optimizer.resume_at(0);
            }
            Phase::Comparisons | Phase::Done => self.state.phase = Phase::Done,
        }
        Ok(())
    }

    fn next_batches(&mut self) -> Result<Vec<MicroBatch>> {
        let language = self.state.phase == Phase::Language;
        let options = PackOptions {
            pad_token_id: self.model.config().pad_token_id,
            with_pairs: !language,
            targets: if language {
                Targets::All
            } else {
                Targets::None
            },
            ..PackOptions::default()
        };
        let order = &mut self.state.order;
        self.feeder.next(&self.train, order, options)
    }

    /// Reads the metrics of the updates since the last reading; waits for the device.
    ///
    /// # Errors
    ///
    /// As [`RewardTrainer::step`].
    pub fn read(&mut self) -> Result<Reading> {
        if self.pending.is_empty() {
            return Ok(Reading::default());
        }
        let rows = self.model.read_metrics()?;
        let update = self.optimizer.statistics()?;
        let pending = std::mem::take(&mut self.pending);
        let steps = pending
            .iter()
            .map(|pending| pending.complete(&rows))
            .collect::<Result<_>>()?;
        if let (true, Some(last)) = (update.skipped > self.skipped, pending.last()) {
            self.skipped = update.skipped;
            return Err(last.not_finite("gradient norm"));
        }
        Ok(Reading {
            steps,
            grad_norm: update.grad_norm,
        })
    }

    /// Whether the options ask for an evaluation after the update just made.
    pub fn evaluation_is_due(&self) -> bool {
        let every = self.options.evaluate_every;
        self.state.phase != Phase::Language
            && every > 0
            && self.state.step > 0
            && !self.validation.is_empty()
            && (self.state.step.is_multiple_of(every) || self.state.phase == Phase::Done)
    }

    /// Evaluates on the validation records, keeps the weights if they are the best so far, and
    /// ends training after too many evaluations without gain.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn evaluate(&mut self) -> Result<Evaluation> {
        let rewards = score_records(&self.model, &self.validation)?;
        let evaluation = Evaluation::of(&self.validation, &rewards);
        let better = self
            .state
            .best
            .is_none_or(|best| evaluation.loss < best.evaluation.loss);
        if better {
            let weights = self
                .model
                .parameters()
                .read(self.model.gpu(), |c| &c.weights)?;
            self.best_weights = Some(weights);
            self.state.best = Some(Best {
                step: self.state.step,
                evaluation,
            });
            self.state.without_gain = 0;
        } else {
            self.state.without_gain += 1;
            if self.options.patience > 0 && self.state.without_gain >= self.options.patience {
                self.state.phase = Phase::Done;
            }
        }
        Ok(evaluation)
    }

    /// Ends training: the weights of the best evaluation, if there was one, become the model's.
    ///
    /// # Errors
    ///
    /// As [`crate::Tensor::write`].
    pub fn finish(&mut self) -> Result<()> {
        self.state.phase = Phase::Done;
        if let Some(best) = &self.best_weights {
            self.model.parameters().write_all(self.model.gpu(), best)?;
        }
        Ok(())
    }

    /// Writes a checkpoint into `folder`, whole or not at all; older ones are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and what the device reports.
    pub fn save_checkpoint(&self, folder: &Path) -> Result<()> {
        let saved = Saved {
            options: self.options.clone(),
            config: self.model.config().clone(),
            state: self.state.clone(),
            fingerprint: fingerprint(&self.train),
            variants: self.model.gpu().variants(),
        };
        checkpoint::save(
            folder,
            self.updates(),
            self.model.gpu(),
            self.model.parameters(),
            self.best_weights.as_deref(),
            &saved,
        )
    }

    /// Goes on from a checkpoint, to the same bits as a run that never stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if it is damaged or was made with other training records.
    pub fn resume(
        gpu: &Gpu,
        path: &Path,
        train: Vec<TokenRecord>,
        validation: Vec<TokenRecord>,
    ) -> Result<Self> {
        let saved: Saved = checkpoint::read_state(path)?;
        if saved.fingerprint != fingerprint(&train) {
            return Err(Error::Checkpoint {
                path: path.to_owned(),
                detail: "it was made with other training records: pass the same data and split, or start anew in another folder".into(),
            });
        }
        if saved.variants != gpu.variants() {
            log::warn!(
                "the checkpoint was made with {}, this device uses {}: the last bits may differ",
                saved.variants,
                gpu.variants()
            );
        }
        let state = saved.state;
        let mut trainer =
            Self::with_state(gpu, &saved.config, saved.options, train, validation, state)?;
        trainer.best_weights = checkpoint::restore(path, gpu, trainer.model.parameters())?;
        trainer.optimizer.resume_at(trainer.state.step);
        Ok(trainer)
    }
}
