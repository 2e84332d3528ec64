//! Weight files: `model.safetensors`, whole or in shards, under Hugging Face names.

mod files;
mod header;
mod index;
mod load;
mod replace;
mod save;
mod source;
mod tensor;
#[cfg(test)]
mod tests;
mod writer;

pub use files::WeightFiles;
pub use load::load_weights;
pub use save::{SaveOptions, save_language_model, save_reward_model};
pub use tensor::StoredTensor;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use writer::{TensorEntry, TensorWriter};

use crate::Error;

const MODEL_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const VALUE_HEAD_FILE: &str = "value_head.safetensors";
const VALUE_HEAD: &str = "value_head.weight";
/// Parameters that models of one kind have and those of another lack.
const HEADS: [&str; 3] = ["score.weight", "lm_head.weight", VALUE_HEAD];

fn refused(place: &str, detail: String) -> Error {
    Error::Model {
        place: place.into(),
        detail,
    }
}
