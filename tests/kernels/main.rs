//! Every kernel on the device in hand, against the float64 reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod attention_golden;
mod cases;
mod cross_entropy;
mod embedding;
mod experience;
mod gae;
mod gae_packed;
mod gelu;
mod gpu;
mod group_advantage;
mod layer_norm;
mod matmul;
mod numerics;
mod optim;
mod pairwise_loss;
mod plan;
mod pooled_head;
mod statistic;
mod token_logprob;
mod tools;
mod value_head;
mod whiten;
