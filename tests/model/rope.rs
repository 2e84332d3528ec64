//! Rotary frequencies as transformers makes them of the same configurations, what is written, and
//! what is refused.

use prefgrad::model::{Rope, RopeScaling};
use prefgrad::reference::compare::difference;
use serde_json::{Value, json};

use crate::support::fixture;

fn read(config: &Value) -> Result<Rope, String> {
    let context = config["max_position_embeddings"].as_u64().unwrap_or(4096);
    Rope::from_json(config, context as usize, 1e4)
}

/// transformers computes in `f32`; each frequency is held against it on its own.
#[test]
fn transformers_figures() {
    let Some(folder) = fixture("rope") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("frequencies.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() > 20);
    for case in &cases {
        let name = &case["name"];
        let rope = read(&case["config"]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let head_dim = case["head_dim"].as_u64().unwrap() as usize;
        let (frequencies, attention_factor) = rope.frequencies(head_dim);
        let expected: Vec<f64> =
            serde_json::from_value(case["inverse_frequencies"].clone()).unwrap();
        assert_eq!(frequencies.len(), head_dim / 2, "{name}");
        assert_eq!(frequencies.len(), expected.len(), "{name}");
        for (i, (actual, expected)) in frequencies.iter().zip(&expected).enumerate() {
            let error = difference(&[*actual], &[*expected]).error;
            assert!(
                error < 1e-6,
                "{name}, pair {i}: {actual} instead of {expected}"
            );
        }
        let expected = case["attention_factor"].as_f64().unwrap();
        assert!((attention_factor / expected - 1.0).abs() < 1e-14, "{name}");
    }
}

#[test]
fn what_is_written_is_what_transformers_read() {
    let Some(folder) = fixture("rope") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("frequencies.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    for case in &cases {
        let rope = read(&case["config"]).unwrap();
        let written = Value::Object(rope.to_json());
        assert_eq!(read(&written).unwrap(), rope, "{}", case["name"]);
        if case["saved"] == true {
            for field in ["rope_theta", "rope_scaling"] {
                assert_eq!(written[field], case["config"][field], "{}", case["name"]);
            }
        }
    }
}

#[test]
fn the_models_own_theta_is_used_where_none_is_given() {
    let rope = Rope::from_json(&json!({"rope_scaling": null}), 4096, 1e6).unwrap();
    let expected = Rope {
        theta: 1e6,
        scaling: RopeScaling::None,
    };
    assert_eq!(rope, expected);
}

#[test]
fn what_is_not_supported_is_named() {
    let llama3 = |low: f64, high: f64| {
        json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": low,
               "high_freq_factor": high})
    };
    for (scaling, part) in [
        (
            json!({"rope_type": "dynamic", "factor": 2}),
            "`default`, `linear`, `llama3` and `yarn`",
        ),
        (json!({"type": "longrope", "factor": 2}), "`longrope`"),
        (json!({"rope_type": 3}), "`rope_type` is 3"),
        (
            json!({"rope_type": "linear"}),
            "`rope_scaling` lacks `factor`",
        ),
        (
            json!({"rope_type": "linear", "factor": null}),
            "lacks `factor`",
        ),
        (
            json!({"rope_type": "linear", "factor": 0.5}),
            "`rope_scaling.factor` is 0.5",
        ),
        (
            json!({"rope_type": "linear", "factor": "2"}),
            "expected a number",
        ),
        (json!({"rope_type": "yarn"}), "lacks `factor`"),
        (
            json!({"rope_type": "yarn", "original_max_position_embeddings": 8192}),
            "`rope_scaling.factor` is 0.5",
        ),
        (
            json!({"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0.5}),
            "`original_max_position_embeddings` is 0.5",
        ),
        (
            json!({"rope_type": "yarn", "factor": 2, "beta_fast": 0.5}),
            "`rope_scaling.beta_fast`",
        ),
        (
            json!({"rope_type": "yarn", "factor": 2, "mscale": -1}),
            "`rope_scaling.mscale`",
        ),
        (
            json!({"rope_type": "yarn", "factor": 2, "truncate": null}),
            "`rope_scaling.truncate`",
        ),
        (
            json!({"rope_type": "llama3", "factor": 8}),
            "lacks `low_freq_factor`",
        ),
        (llama3(4.0, 1.0), "`rope_scaling.high_freq_factor`"),
        (llama3(0.0, 1.0), "`rope_scaling.low_freq_factor` is 0"),
        (
            json!({"partial_rotary_factor": 0.5}),
            "`partial_rotary_factor` is 0.5",
        ),
        (json!({"mrope_section": [16, 24, 24]}), "`mrope_section`"),
        (
            json!({"full_attention": {"rope_type": "default"}}),
            "`full_attention`",
        ),
        (json!({"rope_theta": 1}), "`rope_theta` is 1"),
        (json!("linear"), "expected an object"),
    ] {
        let config = json!({"max_position_embeddings": 4096, "rope_scaling": scaling});
        let error = read(&config).expect_err(part);
        assert!(error.contains(part), "{error}");
    }
    let error = read(&json!({"partial_rotary_factor": 0.25})).unwrap_err();
    assert!(error.contains("`partial_rotary_factor` is 0.25"), "{error}");
    let error = read(&json!({"rope_theta": "1e4"})).unwrap_err();
    assert!(error.contains("`rope_theta`"), "{error}");
    let whole = json!({"partial_rotary_factor": 1.0, "rope_parameters": {"rope_theta": 2e4}});
    assert_eq!(read(&whole).unwrap().theta, 2e4);
}
