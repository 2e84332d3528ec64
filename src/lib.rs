//! Hand-written WGSL compute kernels that learn reward models from human preferences.

pub mod data;
mod error;
pub mod reference;

pub use error::{Error, Result};
