use serde_json::json;

use super::*;
use crate::model::RopeScaling;

fn gpt2() -> ModelConfig {
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
    .into()
}

fn llama(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        num_key_value_heads: 1,
        head_dim: 20,
        intermediate_size: 50,
        norm_eps: 1e-6,
        rope: Some(Rope {
            theta: 1e6,
            scaling: RopeScaling::Linear { factor: 2.0 },
        }),
        qkv_bias: family == Family::Qwen2,
        output_bias: false,
        mlp_bias: false,
        bos_token_id: Some(3),
        stop_token_ids: vec![256, 255],
        ..gpt2()
    }
}

fn refusal(json: &Value) -> String {
    ModelConfig::from_json(json, "config.json")
        .unwrap_err()
        .to_string()
}

#[test]
fn a_saved_config_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: Value| {
        std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    };
    for family in Family::ALL {
        let mut config = match family {
            Family::Gpt2 => gpt2(),
            family => llama(family),
        };
        config.stop_token_ids = config.stop_tokens();
        write("generation_config.json", config.generation_json());
        for json in [config.reward_model_json(), config.language_model_json()] {
            write("config.json", json);
            assert_eq!(ModelConfig::read(folder.path()).unwrap(), config);
        }
    }
}

#[test]
fn what_would_change_the_numbers_is_refused_by_name() {
    for (field, value) in [
        ("activation_function", json!("relu")),
        ("scale_attn_by_inverse_layer_idx", json!(true)),
        ("n_head", json!(5)),
        ("n_embd", json!("48")),
        ("n_layer", Value::Null),
        ("eos_token_id", json!(258)),
        ("quantization_config", json!({"bits": 4})),
    ] {
        let mut json = gpt2().reward_model_json();
        json[field] = value;
        let error = refusal(&json);
        assert!(error.contains(field), "{error}");
    }
    for (family, field, value) in [
        (Family::Llama, "hidden_act", json!("gelu")),
        (Family::Llama, "head_dim", json!(18)),
        (Family::Llama, "num_key_value_heads", json!(2)),
        (Family::Llama, "final_logit_softcapping", json!(30.0)),
        (
            Family::Llama,
            "rope_scaling",
            json!({"rope_type": "longrope"}),
        ),
        (Family::Llama, "rms_norm_eps", json!(-1.0)),
        (Family::Mistral, "num_key_value_heads", Value::Null),
        (Family::Mistral, "sliding_window", json!(63)),
        (Family::Qwen3, "intermediate_size", json!(0)),
        (Family::Qwen3, "eos_token_id", json!([1, 300])),
        (
            Family::Qwen3,
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
        ),
    ] {
        let mut json = llama(family).language_model_json();
        if field == "rope_scaling" {
            json.as_object_mut().unwrap().remove("rope_parameters");
        }
        json[field] = value;
        let error = refusal(&json);
        let named = match field {
            "head_dim" => "a head is 18 wide",
            "rope_scaling" => "longrope",
            "rms_norm_eps" => "epsilon",
            "eos_token_id" => "300",
            field => field,
        };
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn a_window_that_sees_everything_or_is_off_is_no_reason_to_refuse() {
    for (family, fields) in [
        (Family::Mistral, json!({"sliding_window": 64})),
        (
            Family::Qwen2,
            json!({"sliding_window": 8, "use_sliding_window": false}),
        ),
    ] {
        let mut json = llama(family).language_model_json();
        for (name, value) in fields.as_object().unwrap() {
            json[name] = value.clone();
        }
        ModelConfig::from_json(&json, "config.json").unwrap();
    }
    let mut json = llama(Family::Qwen2).language_model_json();
    json["sliding_window"] = 8.into();
    json["use_sliding_window"] = true.into();
    assert!(refusal(&json).contains("sliding_window 8"));
}

#[test]
fn an_unknown_architecture_is_named_with_those_that_are_known() {
    let mut json = llama(Family::Llama).language_model_json();
    json["architectures"] = json!(["LlamaForTokenClassification"]);
    let error = refusal(&json);
    assert!(error.contains("LlamaForTokenClassification") && error.contains("LlamaForCausalLM"));
    json["model_type"] = "gemma2".into();
    let error = refusal(&json);
    assert!(
        error.contains("gemma2") && error.contains("qwen3"),
        "{error}"
    );
    json.as_object_mut().unwrap().remove("model_type");
    assert!(refusal(&json).contains("model_type is missing"));
}
