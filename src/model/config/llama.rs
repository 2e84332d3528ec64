//! `config.json` of Llama and of what is built like it.

use serde_json::{Value, json};

use super::json::{field, flag, number, only, required_size, size, token_id, without};
use super::{Family, ModelConfig};
use crate::model::rope::Rope;

/// Fields that would change the numbers, with the only value implemented.
const FIXED: [(&str, &str); 2] = [("hidden_act", "\"silu\""), ("attention_multiplier", "1.0")];

/// Fields that would change the numbers by being there.
const ABSENT: [&str; 5] = [
    "quantization_config",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "num_local_experts",
    "query_pre_attn_scalar",
];

pub(super) fn read(value: &Value, family: Family) -> Result<ModelConfig, String> {
    only(value, &FIXED)?;
    without(value, &ABSENT)?;
    let max_position_embeddings = required_size(value, "max_position_embeddings")?;
    full_attention(value, family, max_position_embeddings)?;
    let (hidden_size, heads) = (
        required_size(value, "hidden_size")?,
        required_size(value, "num_attention_heads")?,
    );
    // Llama's first models had as many key/value heads as query heads, and no such field.
    let key_value_heads = match (size(value, "num_key_value_heads")?, family) {
        (Some(found), _) => found,
        (None, Family::Llama) => heads,
        (None, _) => return Err("num_key_value_heads is missing".into()),
    };
    let attention_bias = match family {
        Family::Llama | Family::Qwen3 => flag(value, "attention_bias", false)?,
        _ => false,
    };
    let mlp_bias = family == Family::Llama && flag(value, "mlp_bias", false)?;
    Ok(ModelConfig {
        family,
        vocab_size: required_size(value, "vocab_size")?,
        max_position_embeddings,
        hidden_size,
        num_hidden_layers: required_size(value, "num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads,
        head_dim: head_dim(value, family, hidden_size, heads)?,
        intermediate_size: required_size(value, "intermediate_size")?,
        norm_eps: number(value, "rms_norm_eps", 1e-6)?,
        rope: Some(Rope::from_json(value, max_position_embeddings, 10_000.0)?),
        qkv_bias: attention_bias || family == Family::Qwen2,
        output_bias: attention_bias,
        mlp_bias,
        bos_token_id: token_id(value, "bos_token_id")?,
        eos_token_id: token_id(value, "eos_token_id")?,
        pad_token_id: token_id(value, "pad_token_id")?,
        stop_token_ids: vec![],
        tie_word_embeddings: flag(value, "tie_word_embeddings", false)?,
    })
}

fn head_dim(
    value: &Value,
    family: Family,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, String> {
    match (size(value, "head_dim")?, family) {
        (Some(width), _) => Ok(width),
        // What `transformers` takes where the field is missing.
        (None, Family::Qwen3) => Ok(128),
        (None, _) if heads > 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        (None, _) => Err(format!(
            "hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}"
        )),
    }
}

/// Refuses attention that does not see the whole context.
fn full_attention(value: &Value, family: Family, context: usize) -> Result<(), String> {
    let switched_on = match family {
        Family::Qwen2 | Family::Qwen3 => flag(value, "use_sliding_window", false)?,
        _ => true,
    };
    if let Some(window) = size(value, "sliding_window")?
        && switched_on
        && window < context
    {
        return Err(format!(
            "sliding_window {window} is active and not implemented; the model is exact up to a \
             context of {window}: set max_position_embeddings (now {context}) to that, or \
             sliding_window to null where the model was trained without it"
        ));
    }
    let Some(types) = field(value, "layer_types") else {
        return Ok(());
    };
    let other = types
        .as_array()
        .into_iter()
        .flatten()
        .find(|kind| *kind != "full_attention");
    match other {
        Some(kind) if switched_on || kind != "sliding_attention" => Err(format!(
            "layer_types holds {kind}; only \"full_attention\" is implemented"
        )),
        _ => Ok(()),
    }
}

pub(super) fn write(config: &ModelConfig) -> Value {
    let mut json = json!({
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
    });
    match config.family {
        Family::Llama => {
            json["attention_bias"] = config.output_bias.into();
            json["mlp_bias"] = config.mlp_bias.into();
        }
        Family::Qwen3 => json["attention_bias"] = config.output_bias.into(),
        _ => {}
    }
    match config.family {
        Family::Mistral => json["sliding_window"] = Value::Null,
        Family::Qwen2 | Family::Qwen3 => json["use_sliding_window"] = false.into(),
        _ => {}
    }
    if let (Some(rope), Some(fields)) = (&config.rope, json.as_object_mut()) {
        fields.extend(rope.to_json());
    }
    json
}
