//! Training as another program trained, update by update: the runs of `tests/fixtures/parity`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use prefgrad::Gpu;
use prefgrad::data::{DataOrder, Preference, TokenRecord};
use prefgrad::model::{ModelConfig, Parameters, load_weights};
use prefgrad::train::{AdamW, DpoOptions, DpoTrainer, RewardOptions, RewardTrainer, TuningOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Which trainer made a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trainer {
    /// A reward model's.
    Reward,
    /// Direct preference optimisation's.
    Dpo,
}

/// The numbers that a run was made with.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    learning_rate: f64,
    lr_scheduler_kwargs: Floor,
    weight_decay: f64,
    max_grad_norm: f64,
    adam_beta1: f64,
    adam_beta2: f64,
    adam_epsilon: f64,
    beta: Option<f32>,
    updates: u64,
    batch_tokens: usize,
}

#[derive(Debug, Clone, Deserialize)]
struct Floor {
    min_lr_rate: f64,
}

/// What was measured, one number an update.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Log {
    /// Mean loss before the update.
    pub loss: Vec<f64>,
    /// The gradient norm before clipping.
    pub grad_norm: Vec<f64>,
    /// The share of pairs whose chosen answer has the strictly higher reward.
    pub accuracy: Vec<f64>,
    /// Mean of chosen less rejected reward.
    pub margin: Vec<f64>,
    /// The learning rate.
    pub learning_rate: Vec<f64>,
}

impl Log {
    /// The lists by name.
    pub fn figures(&self) -> [(&'static str, &[f64]); 5] {
        [
            ("loss", &self.loss),
            ("gradient norm", &self.grad_norm),
            ("margin", &self.margin),
            ("accuracy", &self.accuracy),
            ("learning rate", &self.learning_rate),
        ]
    }
}

#[derive(Debug, Deserialize)]
struct File {
    trainer: Trainer,
    model: PathBuf,
    pairs: PathBuf,
    settings: Settings,
    trl: Log,
    f64: Log,
}

#[derive(Debug, Deserialize)]
struct Pair {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

/// A run by TRL: where it started, what it read, and what it measured.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which trainer.
    pub trainer: Trainer,
    /// The folder of the starting weights.
    pub model: PathBuf,
    /// Learning rate, decay and the like.
    pub settings: Settings,
    /// The pairs of all updates, in order.
    pub records: Vec<TokenRecord>,
    /// What TRL measured, in f32.
    pub trl: Log,
    /// What the same updates give in float64.
    pub f64: Log,
}

impl Run {
    /// Reads `<trainer>_<model>.json` as `make_parity.py` writes it; paths in it are relative to it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or that lacks something.
    pub fn read(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let file: File = read_json(path)?;
        let updates: Vec<Vec<Pair>> = read_json(&folder.join(&file.pairs))?;
        let pairs = updates.into_iter().flatten();
        Ok(Self {
            trainer: file.trainer,
            model: folder.join(&file.model),
            settings: file.settings,
            records: (1..).zip(pairs).map(record).collect(),
            trl: file.trl,
            f64: file.f64,
        })
    }

    /// Makes the same updates with this crate's trainer.
    ///
    /// # Errors
    ///
    /// What the trainer refuses, and batches that are not those of the run.
    pub fn train(&self, gpu: &Gpu) -> Result<Log> {
        match self.trainer {
            Trainer::Reward => self.train_reward(gpu),
            Trainer::Dpo => self.train_dpo(gpu),
        }
    }

    fn train_reward(&self, gpu: &Gpu) -> Result<Log> {
        let settings = &self.settings;
        let options = RewardOptions {
            batch_tokens: settings.batch_tokens,
            steps: settings.updates,
            learning_rate: settings.learning_rate,
            warmup: 0.0,
            floor: settings.lr_scheduler_kwargs.min_lr_rate,
            optimizer: settings.optimizer(),
            evaluate_every: 0,
            read_every: 1,
            ..RewardOptions::default()
        };
        let config = ModelConfig::read(&self.model)?;
        let records = in_order_of(options.seed, &self.records);
        let mut trainer = RewardTrainer::new(gpu, &config, options, records, vec![])?;
        self.load(gpu, trainer.model().parameters())?;
        let mut log = Log::default();
        while let Some(reading) = trainer.step()? {
            for step in reading.steps {
                self.check_batch(step.step, step.tokens)?;
                log.loss.push(step.loss);
                log.accuracy.push(step.accuracy.unwrap_or(f64::NAN));
                log.margin.push(step.gap.unwrap_or(f64::NAN));
                log.learning_rate.push(step.learning_rate);
            }
            log.grad_norm.push(f64::from(reading.grad_norm));
        }
        Ok(log)
    }

    fn train_dpo(&self, gpu: &Gpu) -> Result<Log> {
        let settings = &self.settings;
        let tuning = TuningOptions {
            batch_tokens: settings.batch_tokens,
            steps: settings.updates,
            learning_rate: settings.learning_rate,
            warmup: 0.0,
            floor: settings.lr_scheduler_kwargs.min_lr_rate,
            optimizer: settings.optimizer(),
            evaluate_every: 0,
            read_every: 1,
            ..TuningOptions::default()
        };
        let options = DpoOptions {
            tuning,
            beta: settings.beta.context("the run's settings have no beta")?,
            ..DpoOptions::default()
        };
        let config = ModelConfig::read(&self.model)?;
        let records = in_order_of(options.tuning.seed, &self.records);
        let mut trainer = DpoTrainer::new(gpu, &config, options, &records, &[])?;
        self.load(gpu, trainer.policy().parameters())?;
        let mut log = Log::default();
        while let Some(reading) = trainer.step()? {
            for step in reading.steps {
                self.check_batch(step.step, step.tokens)?;
                log.loss.push(step.loss);
                log.accuracy.push(step.accuracy);
                log.margin.push(step.margin);
                log.learning_rate.push(step.learning_rate);
            }
            log.grad_norm.push(f64::from(reading.grad_norm));
        }
        Ok(log)
    }

    fn load(&self, gpu: &Gpu, parameters: &Parameters) -> Result<()> {
        let whole = load_weights(gpu, parameters, &self.model)?;
        ensure!(whole, "{}: the head is missing", self.model.display());
        Ok(())
    }

    /// Full batches in the order of the file are those of the run.
    fn check_batch(&self, update: u64, tokens: usize) -> Result<()> {
        let expected = self.settings.batch_tokens;
        ensure!(
            tokens == expected,
            "update {update} is of {tokens} packed tokens; the run's are of {expected}"
        );
        Ok(())
    }
}

impl Settings {
    fn optimizer(&self) -> AdamW {
        AdamW {
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            eps: self.adam_epsilon,
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
        }
    }
}

/// How far two programs are apart in one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The largest, relative where the second's value is above 1; not finite where a value is not
    /// or one list is shorter.
    pub largest: f64,
    /// The update, from 1.
    pub update: usize,
}

impl Difference {
    /// Of two lists, one number an update.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Self {
        if ours.len() != theirs.len() {
            return Self {
                largest: f64::INFINITY,
                update: ours.len().min(theirs.len()) + 1,
            };
        }
        let mut found = Self {
            largest: 0.0,
            update: 1,
        };
        for (update, (a, b)) in (1..).zip(ours.iter().zip(theirs)) {
            let difference = (a - b).abs() / b.abs().max(1.0);
            // What is not a number stays the largest.
            let larger = difference > found.largest || difference.is_nan();
            if found.largest.is_finite() && larger {
                found = Self {
                    largest: difference,
                    update,
                };
            }
        }
        found
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn record((line, pair): (usize, Pair)) -> TokenRecord {
    TokenRecord {
        line,
        prompt: pair.prompt,
        answers: vec![pair.chosen, pair.rejected],
        preferences: vec![Preference {
            chosen: 0,
            rejected: 1,
            weight: 1.0,
            margin: 0.0,
        }],
    }
}

/// The records so arranged that a trainer's shuffling brings them back into their order.
fn in_order_of(seed: u64, records: &[TokenRecord]) -> Vec<TokenRecord> {
    let mut shuffled: Vec<_> = DataOrder::new(seed, records.len())
        .take(records.len())
        .zip(records)
        .collect();
    shuffled.sort_unstable_by_key(|(place, _)| *place);
    shuffled
        .into_iter()
        .map(|(_, record)| record.clone())
        .collect()
}
