//! Weights from the host to files that `transformers` loads.

use std::path::Path;

use serde_json::Value;

use super::VALUE_HEAD;
use super::replace::{Replacement, SavedTensor};
use super::writer::TensorEntry;
use crate::Result;
use crate::model::{ModelConfig, Parameters};

/// How weights are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveOptions {
    /// Models with more bytes of weights are saved as several files of at most this size, with
    /// `model.safetensors.index.json` beside them. A larger tensor has a file of its own.
    pub max_shard_bytes: u64,
}

impl Default for SaveOptions {
    /// Files of 5 GB.
    fn default() -> Self {
        Self {
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// Writes `config.json` and the weights of a reward model, as [`SaveOptions`] have it by default.
///
/// `buffers` holds the weights, one `Vec` a chunk, as [`Parameters::read`] gives them; they are
/// written from there without a copy.
///
/// What was saved in the folder before is replaced: an interrupted save leaves the old weights, the
/// new ones, or a folder that is refused for its missing `config.json`, and the next one cleans up.
/// Weight files of other kinds (`pytorch_model.bin`) are left alone.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io).
pub fn save_reward_model(
    parameters: &Parameters,
    buffers: &[Vec<f32>],
    config: &ModelConfig,
    folder: &Path,
) -> Result<()> {
    SaveOptions::default().save_reward_model(parameters, buffers, config, folder)
}

/// Writes `config.json`, `generation_config.json` and the weights of a language model, as
/// [`save_reward_model`] does. A value head, which `transformers` knows nothing of, goes into a
/// file of its own, `value_head.safetensors`; after an interrupted save it can be missing.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io).
pub fn save_language_model(
    parameters: &Parameters,
    buffers: &[Vec<f32>],
    config: &ModelConfig,
    folder: &Path,
) -> Result<()> {
    SaveOptions::default().save_language_model(parameters, buffers, config, folder)
}

impl SaveOptions {
    /// [`save_reward_model`] with these options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn save_reward_model(
        self,
        parameters: &Parameters,
        buffers: &[Vec<f32>],
        config: &ModelConfig,
        folder: &Path,
    ) -> Result<()> {
        let replacement = Replacement {
            folder,
            model: tensors(parameters, buffers, |_| true)?,
            value_head: Vec::new(),
            config: text(&config.reward_model_json()),
            generation: None,
            max_shard_bytes: self.max_shard_bytes,
        };
        replacement.run()
    }

    /// [`save_language_model`] with these options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn save_language_model(
        self,
        parameters: &Parameters,
        buffers: &[Vec<f32>],
        config: &ModelConfig,
        folder: &Path,
    ) -> Result<()> {
        let replacement = Replacement {
            folder,
            model: tensors(parameters, buffers, |name| name != VALUE_HEAD)?,
            value_head: tensors(parameters, buffers, |name| name == VALUE_HEAD)?,
            config: text(&config.language_model_json()),
            generation: Some(text(&config.generation_json())),
            max_shard_bytes: self.max_shard_bytes,
        };
        replacement.run()
    }
}

fn tensors<'a>(
    parameters: &Parameters,
    buffers: &'a [Vec<f32>],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<SavedTensor<'a>>> {
    parameters
        .specs()
        .iter()
        .filter(|spec| wanted(&spec.name))
        .map(|spec| {
            Ok(SavedTensor {
                entry: TensorEntry {
                    name: spec.name.clone(),
                    shape: spec.shape.clone(),
                },
                values: parameters.pieces(&spec.name, buffers)?,
            })
        })
        .collect()
}

fn text(json: &Value) -> String {
    format!("{json:#}\n")
}
