//! Training that reads like its algorithm.

pub mod checkpoint;
mod evaluation;
mod optimizer;
mod options;
mod reward;
mod schedule;

pub use evaluation::Evaluation;
#[cfg(not(target_arch = "wasm32"))]
pub use evaluation::score_records;
pub use optimizer::{AdamW, Optimizer, UpdateStatistics};
pub use options::RewardOptions;
pub use reward::{Best, Phase, Reading, RewardTrainer, StepMetrics, capacity_for};
pub use schedule::Schedule;
