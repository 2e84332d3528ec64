//! [`TuningOptions`] and the run around them: what trainers of a policy on a file of records have
//! in common.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checkpoint::{self, fingerprint};
use super::feeder::{Feeder, MicroBatch};
use super::metrics::Reading;
use super::reward::capacity_for;
use super::{AdamW, Optimizer, Schedule};
use crate::data::{Batch, DataOrder, PackOptions, Packer, TokenRecord, pack_all};
use crate::gpu::{Gpu, Tensor};
use crate::model::{Head, METRIC_SLOTS, ModelConfig, Policy, PolicyOptions, Purpose};
use crate::{Error, Result};

/// How a policy is trained on records, whatever the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TuningOptions {
    /// Seeds the data order and the starting weights.
    pub seed: u64,
    /// Packed tokens of one micro-batch: the plans are built for this many.
    pub batch_tokens: usize,
    /// Micro-batches of one update.
    pub accumulation: usize,
    /// Updates.
    pub steps: u64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The share of the updates that warms up.
    pub warmup: f64,
    /// The last learning rate, as a share of the highest.
    pub floor: f64,
    /// The optimiser's constants.
    pub optimizer: AdamW,
    /// Updates between evaluations on the validation records; 0: never.
    pub evaluate_every: u64,
    /// Evaluations without a lower validation loss before training stops; 0: never stops.
    pub patience: u64,
    /// Updates between two readings of the metrics.
    pub read_every: u64,
    /// The most memory that logits may take.
    pub logits_bytes: u64,
}

impl Default for TuningOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            batch_tokens: 2048,
            accumulation: 1,
            steps: 500,
            learning_rate: 3e-4,
            warmup: 0.1,
            floor: 0.1,
            optimizer: AdamW::default(),
            evaluate_every: 50,
            patience: 4,
            read_every: 10,
            logits_bytes: PolicyOptions::default().logits_bytes,
        }
    }
}

impl TuningOptions {
    /// Checks what would otherwise train something else than was meant.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub fn validate(&self) -> Result<()> {
        let wrong = if self.batch_tokens == 0 {
            "batch_tokens is 0"
        } else if self.accumulation == 0 {
            "accumulation is 0"
        } else if self.accumulation > METRIC_SLOTS {
            "accumulation is over 256, the micro-batches whose metrics one update can keep"
        } else if self.read_every == 0 {
            "read_every is 0"
        } else if !(0.0..=1.0).contains(&self.warmup) {
            "warmup is a share of the steps: it must lie in [0, 1]"
        } else if !(self.learning_rate.is_finite() && self.learning_rate >= 0.0) {
            "learning_rate must be finite and not negative"
        } else {
            return Ok(());
        };
        Err(Error::shape("tuning options", wrong))
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.learning_rate,
            floor: self.learning_rate * self.floor,
            warmup: (self.steps as f64 * self.warmup).round() as u64,
            total: self.steps,
        }
    }
}

/// The lowest validation loss so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestLoss {
    /// After which update.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// Updates made.
    step: u64,
    over: bool,
    order: DataOrder,
    best: Option<BestLoss>,
    /// Evaluations since the best.
    without_gain: u64,
}

/// Everything of a run that a checkpoint has beside tensors; `own` is the trainer's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved<Own> {
    pub own: Own,
    pub config: ModelConfig,
    state: State,
    /// Of the training and the validation records.
    fingerprints: [u64; 2],
    /// Kernels that give other bits on other devices: what this run used.
    variants: String,
}

/// A submitted update whose metrics have not been read.
pub(super) struct Update {
    /// From 1.
    pub step: u64,
    pub learning_rate: f64,
    pub tokens: usize,
    pub tokens_without_sharing: usize,
    slots: Vec<usize>,
    lines: Vec<usize>,
}

impl Update {
    fn not_finite(&self, what: &'static str) -> Error {
        Error::NonFinite {
            what,
            step: self.step,
            records: self.lines.clone(),
        }
    }
}

/// The records to learn from and those to judge by.
pub(super) struct Split {
    pub train: Vec<TokenRecord>,
    pub validation: Vec<TokenRecord>,
}

/// A policy, its optimiser and the way through the records.
pub(super) struct TuningRun {
    pub policy: Policy,
    pub optimizer: Optimizer,
    pub records: Split,
    options: TuningOptions,
    packing: PackOptions,
    state: State,
    feeder: Feeder,
    best_weights: Option<Vec<Vec<f32>>>,
    pending: Vec<Update>,
    skipped: u32,
}

impl TuningRun {
    /// A policy with random weights of the options' seed, whose batches are packed as `packing`
    /// says.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: TuningOptions,
        packing: PackOptions,
        records: Split,
    ) -> Result<Self> {
        options.validate()?;
        if records.train.is_empty() {
            return Err(Error::Data {
                place: "training records".into(),
                detail: "there are none".into(),
            });
        }
        let capacity = capacity_for(options.batch_tokens, true);
        for record in records.train.iter().chain(&records.validation) {
            Packer::new(capacity, packing).try_push(record)?;
        }
        let policy = Policy::new(
            gpu,
            config,
            &[Head::Language],
            capacity,
            Purpose::Train,
            PolicyOptions {
                logits_bytes: options.logits_bytes,
                ..PolicyOptions::default()
            },
        )?;
        policy.parameters().initialise(gpu, options.seed)?;
        Ok(Self {
            optimizer: Optimizer::new(gpu, policy.parameters(), options.optimizer)?,
            policy,
            state: State {
                step: 0,
                over: options.steps == 0,
                order: DataOrder::new(options.seed, records.train.len()),
                best: None,
                without_gain: 0,
            },
            feeder: Feeder::new(capacity, options.accumulation),
            records,
            options,
            packing,
            best_weights: None,
            pending: Vec::new(),
            skipped: 0,
        })
    }

    pub fn step(&self) -> u64 {
        self.state.step
    }

    pub fn is_over(&self) -> bool {
        self.state.over
    }

    pub fn best(&self) -> Option<BestLoss> {
        self.state.best
    }

    /// The micro-batches of the next update.
    pub fn feed(&mut self) -> Result<Vec<MicroBatch>> {
        let order = &mut self.state.order;
        self.feeder.next(&self.records.train, order, self.packing)
    }

    /// Updates the weights with the gradients of these micro-batches; whether it is time to read
    /// the metrics.
    pub fn update(&mut self, fed: &[MicroBatch]) -> Result<bool> {
        let learning_rate = self.options.schedule().learning_rate(self.state.step);
        self.optimizer.step(learning_rate)?;
        self.state.step += 1;
        self.state.over |= self.state.step >= self.options.steps;
        let batches = || fed.iter().map(|micro| &micro.batch);
        self.pending.push(Update {
            step: self.state.step,
            learning_rate,
            tokens: batches().map(|b| b.tokens.len()).sum(),
            tokens_without_sharing: batches().map(|b| b.tokens_without_sharing).sum(),
            slots: batches().map(|b| b.counts.slot as usize).collect(),
            lines: batches().flat_map(|b| b.lines.iter().copied()).collect(),
        });
        let slots_used: usize = self.pending.iter().map(|update| update.slots.len()).sum();
        Ok(self.state.over
            || self.state.step.is_multiple_of(self.options.read_every)
            || METRIC_SLOTS - slots_used < self.options.accumulation)
    }

    /// Reads the metrics of the updates since the last reading, from a ring (slots, figures);
    /// waits for the device. `describe` has the rows of an update's micro-batches, and gives
    /// `None` where they are not finite.
    pub fn read<Step>(
        &mut self,
        ring: &Tensor,
        describe: impl Fn(&Update, &[&[f32]]) -> Option<Step>,
    ) -> Result<Reading<Step>> {
        let pending = std::mem::take(&mut self.pending);
        let Some(last) = pending.last() else {
            return Ok(Reading::default());
        };
        let values: Vec<f32> = ring.read(self.policy.gpu())?;
        let statistics = self.optimizer.statistics()?;
        let ring: Vec<&[f32]> = values.chunks(ring.len() / METRIC_SLOTS).collect();
        let mut steps = Vec::with_capacity(pending.len());
        for update in &pending {
            let rows: Vec<&[f32]> = update.slots.iter().map(|&slot| ring[slot]).collect();
            let step = describe(update, &rows).ok_or_else(|| update.not_finite("loss"))?;
            steps.push(step);
        }
        if statistics.skipped > self.skipped {
            self.skipped = statistics.skipped;
            return Err(last.not_finite("gradient norm"));
        }
        Ok(Reading {
            steps,
            grad_norm: statistics.grad_norm,
        })
    }

    pub fn evaluation_is_due(&self) -> bool {
        let every = self.options.evaluate_every;
        every > 0
            && self.state.step > 0
            && !self.records.validation.is_empty()
            && (self.state.step.is_multiple_of(every) || self.state.over)
    }

    /// The validation records, packed.
    pub fn validation_batches(&self) -> Result<Vec<Batch>> {
        self.pack(&self.records.validation)
    }

    /// Records in their order, packed.
    pub fn pack(&self, records: &[TokenRecord]) -> Result<Vec<Batch>> {
        pack_all(records, self.policy.batch().capacity, self.packing)
    }

    /// Keeps the weights if this validation loss is the lowest so far, and ends training after too
    /// many that were not.
    pub fn judge(&mut self, loss: f64) -> Result<()> {
        if self.state.best.is_none_or(|best| loss < best.loss) {
            let parameters = self.policy.parameters();
            self.best_weights = Some(parameters.read(self.policy.gpu(), |c| &c.weights)?);
            self.state.best = Some(BestLoss {
                step: self.state.step,
                loss,
            });
            self.state.without_gain = 0;
        } else {
            self.state.without_gain += 1;
            let patience = self.options.patience;
            self.state.over |= patience > 0 && self.state.without_gain >= patience;
        }
        Ok(())
    }

    /// Ends training with the weights of the best evaluation, if there was one.
    pub fn finish(&mut self) -> Result<()> {
        self.state.over = true;
        let parameters = self.policy.parameters();
        match &self.best_weights {
            Some(best) => parameters.write_all(self.policy.gpu(), best),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint into `folder`, with what the trainer adds of its own.
    pub fn save<Own: Serialize>(&self, folder: &Path, own: Own) -> Result<()> {
        let gpu = self.policy.gpu();
        let saved = Saved {
            own,
            config: self.policy.config().clone(),
            state: self.state.clone(),
            fingerprints: self.records.fingerprints(),
            variants: gpu.variants(),
        };
        checkpoint::save(
            folder,
            self.state.step,
            gpu,
            self.policy.parameters(),
            self.best_weights.as_deref(),
            &saved,
        )
    }

    /// Goes on from where a run of the same records was when it saved.
    pub fn restore<Own>(&mut self, path: &Path, saved: &Saved<Own>) -> Result<()> {
        if saved.fingerprints != self.records.fingerprints() {
            return Err(Error::Checkpoint {
                path: path.to_owned(),
                detail: "it was made with other records: pass the same data and split, or start anew in another folder".into(),
            });
        }
        let gpu = self.policy.gpu();
        if saved.variants != gpu.variants() {
            log::warn!(
                "the checkpoint was made with {}, this device uses {}: the last bits may differ",
                saved.variants,
                gpu.variants()
            );
        }
        self.best_weights = checkpoint::restore(path, gpu, self.policy.parameters())?;
        self.optimizer.resume_at(saved.state.step);
        self.state = saved.state.clone();
        Ok(())
    }
}

impl Split {
    fn fingerprints(&self) -> [u64; 2] {
        [fingerprint(&self.train), fingerprint(&self.validation)]
    }
}

/// What a checkpoint says beside its tensors.
pub(super) fn read_saved<Own: DeserializeOwned>(path: &Path) -> Result<Saved<Own>> {
    checkpoint::read_state(path)
}
