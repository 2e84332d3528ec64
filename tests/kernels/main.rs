//! Every kernel on the device in hand, against the float64 reference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod embedding;
mod gelu;
mod compare;
mod cross_entropy;
mod gpu;
mod layer_norm;
mod matmul;
mod numerics;
mod optim;
mod pairwise_loss;
mod plan;
mod statistic;
mod tools;
mod pooled_head;
