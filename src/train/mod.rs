//! Training that reads like its algorithm.
//!
//! The trainer reads metrics and rewards back and waits for them, which a browser's main thread
//! must not: this module is left out on wasm32.

pub mod checkpoint;
mod dpo;
mod dpo_pairs;
mod dpo_step;
mod evaluation;
mod feeder;
mod logprobs;
mod metrics;
mod optimizer;
mod options;
mod reward;
mod schedule;
mod sft;
mod tuning;

pub use dpo::{DpoOptions, DpoTrainer};
pub use dpo_step::{DpoEvaluation, DpoStep, DpoWarning};
pub use evaluation::{Evaluation, score_records};
pub use logprobs::AnswerLogprobs;
pub use metrics::{Phase, Reading, StepMetrics};
pub use optimizer::{AdamW, Optimizer, UpdateStatistics};
pub use options::RewardOptions;
pub use reward::{Best, RewardTrainer, capacity_for};
pub use schedule::Schedule;
pub use sft::{SftOptions, SftStep, SftTrainer};
pub use tuning::{BestLoss, TuningOptions};
