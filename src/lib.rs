//! Hand-written WGSL compute kernels that learn reward models from human preferences.

pub mod check;
pub mod data;
mod error;
mod files;
mod gpu;
pub mod kernels;
pub mod model;
pub mod reference;
pub mod train;

pub use error::{Error, Result};
pub use gpu::*;
