//! Hand-written WGSL compute kernels that learn reward models from human preferences.

pub mod check;
pub mod data;
mod error;
mod gpu;
pub mod kernels;
pub mod reference;

pub use error::{Error, Result};
pub use gpu::*;
