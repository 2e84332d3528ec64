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
mod grpo;
mod kl;
mod logprobs;
mod metrics;
mod optimizer;
mod options;
mod policy_options;
mod policy_run;
mod policy_step;
mod ppo;
mod reward;
mod reward_source;
mod rollout;
mod schedule;
mod sft;
mod tuning;

pub use dpo::{DpoOptions, DpoTrainer};
pub use dpo_step::{DpoEvaluation, DpoStep, DpoWarning};
pub use evaluation::{Evaluation, score_records};
pub use grpo::{GrpoOptions, GrpoTrainer};
pub use kl::{KlController, KlOptions};
pub use logprobs::AnswerLogprobs;
pub use metrics::{Phase, Reading, StepMetrics};
pub use optimizer::{AdamW, Optimizer, UpdateStatistics};
pub use options::RewardOptions;
pub use policy_options::RolloutOptions;
pub use policy_run::ValueModel;
pub use policy_step::{Health, PolicyStep, Warning};
pub use ppo::{KlPenalty, PpoOptions, PpoTrainer};
pub use reward::{Best, RewardTrainer, capacity_for};
pub use reward_source::{Reward, RewardEnsemble, Sample};
pub use rollout::{Group, RolloutBuffer, Slot, policy_capacity};
pub use schedule::Schedule;
pub use sft::{SftOptions, SftStep, SftTrainer};
pub use tuning::{BestLoss, TuningOptions};
