//! Layers of a transformer, forward and backward.

pub mod cross_entropy;
pub mod cross_entropy_statistics;
pub mod matmul;
pub mod zero_rows;
