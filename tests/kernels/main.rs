//! Every kernel on the device in hand, against the float64 reference.

#[path = "../support/mod.rs"]
mod support;

mod cases;
mod embedding;
mod gelu;
mod gpu;
mod layer_norm;
mod matmul;
mod plan;
mod statistic;
mod tools;
