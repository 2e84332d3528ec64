//! The optimiser: gradient norm, clipping and AdamW.

pub mod adamw;
pub mod grad_norm;
