//! Layers of a transformer, forward and backward.

pub mod matmul;
pub mod zero_rows;
