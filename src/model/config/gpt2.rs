//! GPT-2's `config.json`.

use serde_json::{Value, json};

use super::json::{field, flag, number, only, required_size, size, token_id, without};
use super::{Family, ModelConfig};

/// Sizes and token ids of a GPT-2 model, under the names that its `config.json` has: short to
/// write, and [`ModelConfig`] can be made from it.
#[derive(Debug, Clone, PartialEq)]
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
    /// Width of the feed-forward layer; none: four times the model's.
    pub n_inner: Option<usize>,
    /// Added to each variance before its root.
    pub layer_norm_epsilon: f64,
    /// The token that ends a text.
    pub eos_token_id: Option<u32>,
    /// The token that pooling skips from the right.
    pub pad_token_id: Option<u32>,
    /// Whether the token table also is the language-model head.
    pub tie_word_embeddings: bool,
}

impl From<Gpt2Config> for ModelConfig {
    fn from(config: Gpt2Config) -> Self {
        Self {
            family: Family::Gpt2,
            vocab_size: config.vocab_size,
            max_position_embeddings: config.n_positions,
            hidden_size: config.n_embd,
            num_hidden_layers: config.n_layer,
            num_attention_heads: config.n_head,
            num_key_value_heads: config.n_head,
            head_dim: config.n_embd / config.n_head.max(1),
            intermediate_size: config.n_inner.unwrap_or(4 * config.n_embd),
            norm_eps: config.layer_norm_epsilon,
            rope: None,
            qkv_bias: true,
            output_bias: true,
            mlp_bias: true,
            bos_token_id: config.eos_token_id,
            eos_token_id: config.eos_token_id,
            pad_token_id: config.pad_token_id,
            stop_token_ids: vec![],
            tie_word_embeddings: config.tie_word_embeddings,
        }
    }
}

/// Fields that would change the numbers, with the only value implemented.
const FIXED: [(&str, &str); 5] = [
    ("activation_function", "\"gelu_new\""),
    ("scale_attn_weights", "true"),
    ("scale_attn_by_inverse_layer_idx", "false"),
    ("reorder_and_upcast_attn", "false"),
    ("add_cross_attention", "false"),
];

pub(super) fn read(value: &Value) -> Result<ModelConfig, String> {
    only(value, &FIXED)?;
    without(value, &["quantization_config"])?;
    let (width, heads) = (
        required_size(value, "n_embd")?,
        required_size(value, "n_head")?,
    );
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(format!(
            "n_embd {width} is not a multiple of n_head {heads}"
        ));
    }
    let config = Gpt2Config {
        vocab_size: required_size(value, "vocab_size")?,
        n_positions: required_size(value, "n_positions")?,
        n_embd: width,
        n_layer: required_size(value, "n_layer")?,
        n_head: heads,
        n_inner: size(value, "n_inner")?,
        layer_norm_epsilon: number(value, "layer_norm_epsilon", 1e-5)?,
        eos_token_id: token_id(value, "eos_token_id")?,
        pad_token_id: token_id(value, "pad_token_id")?,
        tie_word_embeddings: flag(value, "tie_word_embeddings", true)?,
    };
    let bos_token_id = match field(value, "bos_token_id") {
        Some(_) => token_id(value, "bos_token_id")?,
        None => config.eos_token_id,
    };
    Ok(ModelConfig {
        bos_token_id,
        ..config.into()
    })
}

pub(super) fn write(config: &ModelConfig) -> Value {
    json!({
        "activation_function": "gelu_new",
        "n_positions": config.max_position_embeddings,
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.intermediate_size,
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    })
}
