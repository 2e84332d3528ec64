//! Layers of a transformer, forward and backward.

pub mod layer_norm;
pub mod matmul;
