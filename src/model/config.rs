//! [`Gpt2Config`]: a model's sizes, as `config.json` of a Hugging Face folder has them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// Sizes and token ids of a GPT-2 model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Entries of the position table: the longest context.
    pub n_positions: usize,
    /// Model width C.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads; each is `n_embd / n_head` wide.
    pub n_head: usize,
    /// Width of the feed-forward layer; null: four times the model's.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Added to each variance before its root.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f64,
    /// The token that ends a text.
    #[serde(default)]
    pub eos_token_id: Option<u32>,
    /// The token that pooling skips from the right.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Whether the token table also is the language-model head.
    #[serde(default = "default_tie")]
    pub tie_word_embeddings: bool,
}

fn default_epsilon() -> f64 {
    1e-5
}

fn default_tie() -> bool {
    true
}

/// Fields of a `config.json` that would change the numbers, with the only value implemented.
const FIXED: [(&str, &str); 6] = [
    ("activation_function", "\"gelu_new\""),
    ("scale_attn_weights", "true"),
    ("scale_attn_by_inverse_layer_idx", "false"),
    ("reorder_and_upcast_attn", "false"),
    ("add_cross_attention", "false"),
    ("model_type", "\"gpt2\""),
];

impl Gpt2Config {
    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.n_embd / self.n_head.max(1)
    }

    /// Width of the feed-forward layer.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Checks that the sizes agree with each other and with the kernels.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] names the field and says what would be right.
    pub fn validate(&self, place: &str) -> Result<()> {
        let refuse = |detail: String| {
            Err(Error::Model {
                place: place.into(),
                detail,
            })
        };
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return refuse(format!("{name} is 0"));
        }
        let (width, heads) = (self.n_embd, self.n_head);
        if !width.is_multiple_of(heads) {
            return refuse(format!(
                "n_embd {width} is not a multiple of n_head {heads}"
            ));
        }
        let head = self.head_width();
        if head > 128 || !head.is_multiple_of(4) {
            return refuse(format!(
                "a head is {head} wide (n_embd {width} / n_head {heads}): it must be a multiple of 4, at most 128"
            ));
        }
        for (name, id) in [
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ] {
            if let Some(id) = id
                && id as usize >= self.vocab_size
            {
                return refuse(format!(
                    "{name} {id} is outside vocab_size {}",
                    self.vocab_size
                ));
            }
        }
        Ok(())
    }

    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Model`] for a field that is missing, wrong, or asks for something
    /// that is not implemented and would change the numbers.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let place = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
            action: "cannot read",
            path: path.clone(),
            source,
        })?;
        let refuse = |detail: String| Error::Model {
            place: place.clone(),
            detail,
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| refuse(format!("not JSON: {error}")))?;
        Self::from_json(&value, &place)
    }

    /// Reads the contents of a `config.json`; `place` names it in messages.
    ///
    /// # Errors
    ///
    /// As [`Gpt2Config::read`].
    pub fn from_json(value: &Value, place: &str) -> Result<Self> {
        let refuse = |detail: String| Error::Model {
            place: place.into(),
            detail,
        };
        for (field, expected) in FIXED {
            let found = value.get(field).map(Value::to_string);
            if let Some(found) = found.filter(|found| found != expected) {
                return Err(refuse(format!(
                    "{field} is {found}; only {expected} is implemented"
                )));
            }
        }
        let config: Self = Self::deserialize(value).map_err(|error| refuse(error.to_string()))?;
        config.validate(place)?;
        Ok(config)
    }

    /// The `config.json` of a reward model, as `transformers` reads it.
    ///
    /// Dropout is 0: shared prompts are exact only without it.
    pub fn reward_model_json(&self) -> Value {
        let mut json = self.model_json("GPT2ForSequenceClassification");
        json["num_labels"] = 1.into();
        json["id2label"] = serde_json::json!({"0": "reward"});
        json["label2id"] = serde_json::json!({"reward": 0});
        json["tie_word_embeddings"] = true.into();
        json
    }

    /// The `config.json` of a language model, as `transformers` reads it; dropout is 0.
    pub fn language_model_json(&self) -> Value {
        self.model_json("GPT2LMHeadModel")
    }

    /// The `generation_config.json` beside it.
    pub fn generation_json(&self) -> Value {
        serde_json::json!({
            "bos_token_id": self.eos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
        })
    }

    fn model_json(&self, architecture: &str) -> Value {
        serde_json::json!({
            "architectures": [architecture],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "vocab_size": self.vocab_size,
            "n_positions": self.n_positions,
            "n_embd": self.n_embd,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": self.eos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "dtype": "float32",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Gpt2Config {
        Gpt2Config {
            vocab_size: 258,
            n_positions: 64,
            n_embd: 48,
            n_layer: 2,
            n_head: 3,
            n_inner: None,
            layer_norm_epsilon: 1e-5,
            eos_token_id: Some(256),
            pad_token_id: Some(257),
            tie_word_embeddings: true,
        }
    }

    #[test]
    fn a_saved_config_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, small().reward_model_json().to_string()).unwrap();
        assert_eq!(Gpt2Config::read(folder.path()).unwrap(), small());
    }

    #[test]
    fn what_would_change_the_numbers_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for (field, value) in [
            ("activation_function", Value::from("relu")),
            ("scale_attn_by_inverse_layer_idx", Value::from(true)),
            ("n_head", Value::from(5)),
            ("eos_token_id", Value::from(258)),
        ] {
            let mut json = small().reward_model_json();
            json[field] = value;
            std::fs::write(&path, json.to_string()).unwrap();
            let error = Gpt2Config::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
