//! Training that reads like its algorithm.
//!
//! The trainer reads metrics and rewards back and waits for them, which a browser's main thread
//! must not: this module is left out on wasm32.

pub mod checkpoint;
mod evaluation;
mod metrics;
mod optimizer;
mod options;
mod reward;
mod schedule;

pub use evaluation::{Evaluation, score_records};
pub use metrics::{Phase, Reading, StepMetrics};
pub use optimizer::{AdamW, Optimizer, UpdateStatistics};
pub use options::RewardOptions;
pub use reward::{Best, RewardTrainer, capacity_for};
pub use schedule::Schedule;
