//! Every kernel on the device in hand, against the float64 reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod attention;
mod attention_decode;
mod attention_golden;
mod cases;
mod cross_entropy;
mod embedding;
mod gelu;
mod gpu;
mod layer_norm;
mod matmul;
mod numerics;
mod optim;
mod pairwise_loss;
mod plan;
mod pooled_head;
mod sample;
mod statistic;
mod token_logprob;
mod tools;
mod value_head;
