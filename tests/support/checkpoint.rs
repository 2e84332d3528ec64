//! Small Hugging Face checkpoints with the figures that `transformers` computed for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use prefgrad::reference::nn::gelu::Gelu;
use prefgrad::reference::transformer::{Parameters, Transformer};
use serde_json::Value;

use super::tensors::{Array, read};

/// A checkpoint and what is expected of it.
#[derive(Debug)]
pub struct Checkpoint {
    pub folder: PathBuf,
    pub config: Value,
    /// Inputs, outputs, gradients and, for some, weights after three steps.
    pub expected: BTreeMap<String, Array>,
    /// Losses and gradient norms of the first steps, and the options of the training.
    pub training: Value,
}

impl Checkpoint {
    pub fn expected(&self, name: &str) -> &Array {
        self.expected
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {}", self.folder.display()))
    }

    /// The `index`-th number of a list in the training figures.
    pub fn figure(&self, name: &str, index: usize) -> f64 {
        self.training[name][index]
            .as_f64()
            .unwrap_or_else(|| panic!("no {name}[{index}]"))
    }

    /// The reference model of a GPT-2's sizes.
    pub fn transformer(&self) -> Transformer {
        let size = |name: &str| self.config[name].as_u64().expect("a size") as usize;
        assert_eq!(self.config["activation_function"], "gelu_new");
        Transformer {
            vocabulary: size("vocab_size"),
            context: size("n_positions"),
            width: size("n_embd"),
            layers: size("n_layer"),
            heads: size("n_head"),
            inner: 4 * size("n_embd"),
            eps: self.config["layer_norm_epsilon"].as_f64().expect("eps"),
            gelu: Gelu::Tanh,
        }
    }

    /// The weights of an `f32` checkpoint in one file, in `f64` under their Hugging Face names.
    pub fn parameters(&self) -> Parameters {
        read(&self.folder.join("model.safetensors"))
            .iter()
            .map(|(name, array)| (name.clone(), array.f64()))
            .collect()
    }

    /// The rows of `input_ids` without their right padding.
    pub fn sequences(&self) -> Vec<Vec<u32>> {
        let ids = self.expected("input_ids");
        let mask = self.expected("attention_mask").u32();
        let width = ids.shape[1];
        let rows = ids.u32();
        rows.chunks(width)
            .zip(mask.chunks(width))
            .map(|(ids, mask)| ids[..mask.iter().sum::<u32>() as usize].to_vec())
            .collect()
    }
}

/// Reads a checkpoint from `tests/fixtures/<name>`; none, with a message, where it is not there.
pub fn load(name: &str) -> Option<Checkpoint> {
    let folder = super::fixture(name)?;
    let json = |file: &str| -> Value {
        let path = folder.join(file);
        let text =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).expect("JSON")
    };
    Some(Checkpoint {
        config: json("config.json"),
        expected: read(&folder.join("expected.safetensors")),
        training: json("expected.json"),
        folder,
    })
}
