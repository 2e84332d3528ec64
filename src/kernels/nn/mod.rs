//! Layers of a transformer, forward and backward.

pub mod attention;
pub mod matmul;
