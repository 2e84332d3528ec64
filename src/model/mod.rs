//! A GPT-2 decoder with a scalar reward head: sizes, weights, and its plans.

mod config;
mod parameters;
mod weights;

pub use config::Gpt2Config;
pub use parameters::{Chunk, Init, ParameterSpec, Parameters, Window, gpt2_parameters};
pub use weights::{load_weights, save_reward_model};
