//! [`ModelConfig`]: a model's family and sizes, as `config.json` of a Hugging Face folder has them.

mod gpt2;
mod json;
mod llama;

use std::path::Path;

pub use gpt2::Gpt2Config;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rope::Rope;
use crate::files::io_error;
use crate::kernels::nn::attention::{Heads, MAX_HEAD_WIDTH};
use crate::{Error, Result};

/// Whose layers, names and `config.json` a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// GPT-2: LayerNorm, a table of positions, GELU.
    Gpt2,
    /// Llama 2 and 3, SmolLM2: RMSNorm, rotary positions, SwiGLU, grouped queries.
    Llama,
    /// Mistral without a sliding window: as Llama.
    Mistral,
    /// Qwen2 and Qwen2.5: as Llama, with biases for queries, keys and values.
    Qwen2,
    /// Qwen3: as Llama, with a norm of each query and key head.
    Qwen3,
}

impl Family {
    /// All that are implemented.
    pub const ALL: [Self; 5] = [
        Self::Gpt2,
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
    ];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// How the names of `transformers`' classes begin.
    fn class(self) -> &'static str {
        match self {
            Self::Gpt2 => "GPT2",
            Self::Llama => "Llama",
            Self::Mistral => "Mistral",
            Self::Qwen2 => "Qwen2",
            Self::Qwen3 => "Qwen3",
        }
    }

    /// `transformers`' class of a language model.
    fn language_model(self) -> String {
        match self {
            Self::Gpt2 => "GPT2LMHeadModel".into(),
            other => format!("{}ForCausalLM", other.class()),
        }
    }

    /// `transformers`' class of a reward model.
    fn reward_model(self) -> String {
        format!("{}ForSequenceClassification", self.class())
    }
}

/// A model's family, sizes and token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Whose layers and names.
    pub family: Family,
    /// V: entries of the token table.
    pub vocab_size: usize,
    /// The longest context in tokens.
    pub max_position_embeddings: usize,
    /// C: the width of the residual stream.
    pub hidden_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// H: query heads.
    pub num_attention_heads: usize,
    /// G: key/value heads, which divides H.
    pub num_key_value_heads: usize,
    /// D: the width of a head.
    pub head_dim: usize,
    /// The width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Added to each variance or mean square before its root.
    pub norm_eps: f64,
    /// Rotary positions; none: a learned table of positions.
    pub rope: Option<Rope>,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward layers have biases.
    pub mlp_bias: bool,
    /// The token that begins a text, if there is one.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text.
    pub eos_token_id: Option<u32>,
    /// The token that pooling skips from the right.
    pub pad_token_id: Option<u32>,
    /// Every token that ends a generated text, as `generation_config.json` lists them; empty:
    /// `eos_token_id` alone.
    pub stop_token_ids: Vec<u32>,
    /// Whether the token table also is the language-model head.
    pub tie_word_embeddings: bool,
}

impl ModelConfig {
    /// Whether each query and key head has a norm of its own.
    pub fn qk_norm(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// The heads of each layer's attention.
    pub fn heads(&self) -> Heads {
        Heads {
            query: self.num_attention_heads,
            key_value: self.num_key_value_heads,
            width: self.head_dim,
        }
    }

    /// Every token that ends a generated text.
    pub fn stop_tokens(&self) -> Vec<u32> {
        match self.stop_token_ids.as_slice() {
            [] => self.eos_token_id.into_iter().collect(),
            list => list.to_vec(),
        }
    }

    /// Checks that the sizes agree with each other and with the kernels.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] names the field and says what would be right.
    pub fn validate(&self, place: &str) -> Result<()> {
        self.check().map_err(|detail| Error::Model {
            place: place.into(),
            detail,
        })
    }

    fn check(&self) -> std::result::Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("intermediate_size", self.intermediate_size),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(format!("{name} is 0"));
            }
            if u32::try_from(size).is_err() {
                return Err(format!("{name} is {size}: more than 32 bits hold"));
            }
        }
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(shared) {
            return Err(format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {shared}"
            ));
        }
        let head = self.head_dim;
        let width = self.hidden_size;
        if self.family == Family::Gpt2 && (head * heads != width || shared != heads) {
            return Err(format!(
                "hidden_size (n_embd) {width} is not num_attention_heads (n_head) {heads} times a \
                 whole head_dim, each with keys and values of its own"
            ));
        }
        if head == 0 || head > MAX_HEAD_WIDTH || !head.is_multiple_of(4) {
            return Err(format!(
                "a head is {head} wide: it must be a multiple of 4, at most {MAX_HEAD_WIDTH}"
            ));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(format!("the norms' epsilon is {}", self.norm_eps));
        }
        self.check_tokens()
    }

    fn check_tokens(&self) -> std::result::Result<(), String> {
        let single = [
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("pad_token_id", self.pad_token_id),
        ];
        let stops = self.stop_token_ids.iter().map(|id| ("a stop token", *id));
        let all = single
            .into_iter()
            .filter_map(|(name, id)| Some((name, id?)))
            .chain(stops);
        for (name, id) in all {
            if id as usize >= self.vocab_size {
                return Err(format!(
                    "{name} {id} is outside vocab_size {}",
                    self.vocab_size
                ));
            }
        }
        Ok(())
    }

    /// Reads `config.json` of a folder and, where it is there, `generation_config.json`, which
    /// knows every token that ends a text.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Model`] for a field that is missing, wrong, or asks for something
    /// that is not implemented and would change the numbers.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let mut config = Self::from_json(&read_json(&path)?, &path.display().to_string())?;
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            let place = generation.display().to_string();
            let stops = json::token_ids(&read_json(&generation)?, "eos_token_id");
            config.stop_token_ids = stops.map_err(|detail| Error::Model {
                place: place.clone(),
                detail,
            })?;
            config.validate(&place)?;
        }
        Ok(config)
    }

    /// Reads the contents of a `config.json`; `place` names it in messages.
    ///
    /// # Errors
    ///
    /// As [`ModelConfig::read`].
    pub fn from_json(value: &Value, place: &str) -> Result<Self> {
        let read = || {
            let family = family_of(value)?;
            let mut config = match family {
                Family::Gpt2 => gpt2::read(value)?,
                family => llama::read(value, family)?,
            };
            config.stop_token_ids = json::token_ids(value, "eos_token_id")?;
            Ok(config)
        };
        let config: Self = read().map_err(|detail: String| Error::Model {
            place: place.into(),
            detail,
        })?;
        config.validate(place)?;
        Ok(config)
    }

    /// The `config.json` of a reward model, as `transformers` reads it.
    ///
    /// Dropout is 0: shared prompts are exact only without it.
    pub fn reward_model_json(&self) -> Value {
        let mut json = self.model_json(&self.family.reward_model());
        json["num_labels"] = 1.into();
        json["id2label"] = serde_json::json!({"0": "reward"});
        json["label2id"] = serde_json::json!({"reward": 0});
        json["tie_word_embeddings"] = true.into();
        json
    }

    /// The `config.json` of a language model, as `transformers` reads it; dropout is 0.
    pub fn language_model_json(&self) -> Value {
        self.model_json(&self.family.language_model())
    }

    /// The `generation_config.json` beside it.
    pub fn generation_json(&self) -> Value {
        let stops = self.stop_tokens();
        let eos = match stops.as_slice() {
            [] => Value::Null,
            [only] => Value::from(*only),
            list => Value::from(list.to_vec()),
        };
        serde_json::json!({
            "bos_token_id": self.bos_token_id.or(self.eos_token_id),
            "eos_token_id": eos,
            "pad_token_id": self.pad_token_id,
        })
    }

    fn model_json(&self, architecture: &str) -> Value {
        let mut json = match self.family {
            Family::Gpt2 => gpt2::write(self),
            _ => llama::write(self),
        };
        json["architectures"] = serde_json::json!([architecture]);
        json["model_type"] = self.family.model_type().into();
        json["vocab_size"] = self.vocab_size.into();
        json["bos_token_id"] = serde_json::json!(self.bos_token_id.or(self.eos_token_id));
        json["eos_token_id"] = serde_json::json!(self.eos_token_id);
        json["pad_token_id"] = serde_json::json!(self.pad_token_id);
        json["tie_word_embeddings"] = self.tie_word_embeddings.into();
        json["dtype"] = "float32".into();
        json
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(io_error("cannot read", path))?;
    serde_json::from_str(&text).map_err(|error| Error::Model {
        place: path.display().to_string(),
        detail: format!("not JSON: {error}"),
    })
}

/// The family of `model_type`, if the architecture is one that the crate has a head for.
fn family_of(value: &Value) -> std::result::Result<Family, String> {
    let known =
        "gpt2, llama (Llama 2 and 3, SmolLM2), mistral, qwen2 (Qwen2, Qwen2.5) and qwen3 are";
    let name = match value.get("model_type") {
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(format!(
                "model_type is {other}, not text; {known} implemented"
            ));
        }
        None => return Err(format!("model_type is missing; {known} implemented")),
    };
    let family = Family::ALL
        .into_iter()
        .find(|family| family.model_type() == name)
        .ok_or_else(|| format!("model_type \"{name}\" is not implemented; {known}"))?;
    let classes = [
        format!("{}Model", family.class()),
        family.language_model(),
        family.reward_model(),
    ];
    match value["architectures"][0].as_str() {
        Some(class) if !classes.iter().any(|known| known == class) => Err(format!(
            "the architecture {class} is not implemented; for \"{name}\" {} are",
            classes.join(", ")
        )),
        _ => Ok(family),
    }
}

#[cfg(test)]
mod tests;
