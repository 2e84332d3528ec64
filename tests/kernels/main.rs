//! Every kernel on the device in hand, against the float64 reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod attention_decode;
mod attention_golden;
mod cases;
mod compiler;
mod cross_entropy;
mod dpo_loss;
mod embedding;
mod experience;
mod gae;
mod gae_packed;
mod gelu;
mod gpu;
mod group_advantage;
mod grpo_loss;
mod grpo_loss_golden;
mod layer_norm;
mod matmul;
mod matmul_tuning;
mod numerics;
mod optim;
mod pairwise_loss;
mod plan;
mod policy;
mod pooled_head;
mod ppo_loss;
mod ppo_loss_golden;
mod qk_norm;
mod rms_norm;
mod rope;
mod sample;
mod statistic;
mod swiglu;
mod token_logprob;
mod tools;
mod value_head;
mod whiten;
