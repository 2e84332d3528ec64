//! A decoder of the GPT-2 or Llama families with its heads: sizes, weights, and plans.

mod activations;
mod config;
mod critic;
mod device_batch;
mod generate;
mod language_head;
mod layers;
mod parameters;
mod policy;
mod reward;
mod rope;
mod specs;
mod trunk;
mod weights;

pub use config::{Family, Gpt2Config, ModelConfig};
pub use critic::Critic;
pub use device_batch::{DeviceBatch, DeviceLists};
pub use generate::{
    Completion, Finish, GenerateOptions, Generator, GeneratorCapacity, Request, SamplingOptions,
};
pub use language_head::{LanguageHead, head_windows};
pub use parameters::{Chunk, Parameters, Window};
pub use policy::{Policy, PolicyOptions};
pub use reward::{METRIC_SLOTS, RewardModel};
pub use rope::{Rope, RopeScaling};
pub use specs::{Head, Init, ParameterSpec, model_parameters};
pub use trunk::{Purpose, Trunk};
pub use weights::{
    SaveOptions, StoredTensor, WeightFiles, load_weights, save_language_model, save_reward_model,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use weights::{TensorEntry, TensorWriter};
