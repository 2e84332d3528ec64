//! The whole model on the device in hand: against transformers, against PyTorch's training, and
//! against itself with prompts apart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod activity;
mod dpo;
mod families;
mod generate;
mod gpt2;
mod memory;
mod parity;
mod policy_chain;
mod policy_input;
mod policy_models;
mod policy_ratio;
mod policy_reference;
mod policy_reward;
mod policy_rollout;
mod policy_run;
mod policy_tools;
mod pooling;
mod rope;
mod sft;
mod sharing;
mod tools;
mod train20;
mod trainer;
mod twin;
mod weight_files;
mod windows;
