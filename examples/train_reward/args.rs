//! The command line.

use std::path::PathBuf;

use clap::Parser;
use prefgrad::train::{AdamW, RewardOptions};

/// Trains a reward model on human comparisons, on any GPU.
///
/// Reads JSON Lines (also .gz), a .json list or .parquet with {"prompt", "chosen", "rejected"},
/// {"chosen", "rejected"}, or {"prompt", "responses", "ranks"}, as texts or as chat messages, which
/// the chat template beside the tokenizer writes, or HH-RLHF's turns without one. Leaves in --out a model that `transformers`
/// loads (config.json, model.safetensors), its tokenizer, metrics.jsonl, TensorBoard events,
/// pictures of the curves, and report.json with the held-out accuracy beside two baselines.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Comparisons to learn from.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Comparisons to be judged on; without it, prompts held out from --data.
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// The share of prompts held out from --data, and again from the rest for early stopping.
    #[arg(long, default_value_t = 0.15, value_name = "SHARE")]
    pub held_out: f64,
    /// A tokenizer.json, or a folder with one [default: the one in --init, else bytes].
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Start from this GPT-2 checkpoint (a Hugging Face folder) instead of random weights.
    #[arg(long, value_name = "DIR")]
    pub init: Option<PathBuf>,
    /// Where the model goes.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from the newest checkpoint in --out; its options win over the command line's.
    #[arg(long)]
    pub resume: bool,
    /// Stop at the first record that cannot be used instead of leaving it out.
    #[arg(long)]
    pub strict: bool,

    /// Transformer blocks.
    #[arg(long, default_value_t = 2, help_heading = "Model")]
    pub layers: usize,
    /// Model width.
    #[arg(long, default_value_t = 128, help_heading = "Model")]
    pub width: usize,
    /// Attention heads.
    #[arg(long, default_value_t = 4, help_heading = "Model")]
    pub heads: usize,
    /// Longest prompt and answer together, in tokens; longer prompts lose their beginning.
    #[arg(long, default_value_t = 256, help_heading = "Model")]
    pub context: usize,

    /// Updates of next-token prediction on the training texts before the first comparison.
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    pub pretrain_steps: u64,
    /// Updates on comparisons.
    #[arg(long, default_value_t = 300, help_heading = "Training")]
    pub steps: u64,
    /// Packed tokens of a micro-batch.
    #[arg(long, default_value_t = 2048, help_heading = "Training")]
    pub batch_tokens: usize,
    /// Micro-batches of an update.
    #[arg(long, default_value_t = 1, help_heading = "Training")]
    pub accumulation: usize,
    /// Highest learning rate on comparisons.
    #[arg(long, default_value_t = 3e-4, help_heading = "Training")]
    pub lr: f64,
    /// Highest learning rate of the language pretraining.
    #[arg(long, default_value_t = 1e-3, help_heading = "Training")]
    pub pretrain_lr: f64,
    /// Decay of matrices and tables.
    #[arg(long, default_value_t = 0.01, help_heading = "Training")]
    pub weight_decay: f64,
    /// Assumed rate of wrong labels.
    #[arg(long, default_value_t = 0.0, help_heading = "Training")]
    pub label_smoothing: f32,
    /// Keeps rewards near zero: factor of (r_chosen + r_rejected)².
    #[arg(long, default_value_t = 0.01, help_heading = "Training")]
    pub center_rewards: f32,
    /// Updates between evaluations for early stopping; 0: never.
    #[arg(long, default_value_t = 25, help_heading = "Training")]
    pub evaluate_every: u64,
    /// Evaluations without gain before training stops; 0: never.
    #[arg(long, default_value_t = 6, help_heading = "Training")]
    pub patience: u64,
    /// Updates between checkpoints; 0: only on Ctrl-C.
    #[arg(long, default_value_t = 100, help_heading = "Training")]
    pub checkpoint_every: u64,
    /// Seeds weights, data order and splits.
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    pub seed: u64,
    /// Print where the time goes, kernel by kernel, after training.
    #[arg(long)]
    pub profile: bool,
}

impl Args {
    /// The trainer's options.
    pub fn options(&self) -> RewardOptions {
        RewardOptions {
            seed: self.seed,
            batch_tokens: self.batch_tokens,
            accumulation: self.accumulation,
            pretrain_steps: self.pretrain_steps,
            steps: self.steps,
            learning_rate: self.lr,
            pretrain_learning_rate: self.pretrain_lr,
            optimizer: AdamW {
                weight_decay: self.weight_decay,
                ..AdamW::default()
            },
            label_smoothing: self.label_smoothing,
            center_rewards_coefficient: self.center_rewards,
            evaluate_every: self.evaluate_every,
            patience: self.patience,
            ..RewardOptions::default()
        }
    }
}
