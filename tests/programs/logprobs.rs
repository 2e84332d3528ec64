//! Log-probabilities of answers: `transformers`' numbers, a line for each line.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::run::{fail, succeed};
use crate::support::checkpoint::{Checkpoint, load};

/// A copy of the checkpoint with a tokenizer whose words are `t0`, `t1`, ...
fn model(checkpoint: &Checkpoint, folder: &Path) -> String {
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(checkpoint.folder.join(name), folder.join(name)).unwrap();
    }
    let words: serde_json::Map<String, Value> =
        (0..512).map(|id| (format!("t{id}"), id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t0"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().fold(String::new(), |mut text, token| {
        let _ = write!(text, "t{token} ");
        text
    })
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap_or_else(|| panic!("{value}"));
    list.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn run(model: &str, data: &str, out: &str) -> Vec<Value> {
    succeed(
        "logprobs",
        &["--model", model, "--data", data, "--out", out],
    );
    let text = std::fs::read_to_string(out).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn they_are_those_of_transformers() {
    let Some(checkpoint) = load("gpt2_lm") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let model = model(&checkpoint, folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, out) = (path("data.jsonl"), path("out.jsonl"));
    let sequences = checkpoint.sequences();
    let mut lines = String::new();
    for (i, tokens) in sequences.iter().enumerate() {
        let (prompt, answer) = tokens.split_at((i + 1).min(tokens.len() - 1));
        let record = json!({"prompt": text(prompt), "responses": [text(answer)]});
        let _ = writeln!(lines, "{record}");
    }
    let (prompt, answer) = sequences[0].split_at(1);
    let pair = json!({"prompt": text(prompt), "chosen": text(answer), "rejected": "t7 t8"});
    let _ = writeln!(lines, "nonsense\n{pair}");
    let _ = writeln!(lines, "{}", json!({"chosen": "t5 t6", "rejected": "t5 t7"}));
    std::fs::write(&data, lines).unwrap();
    let found = run(&model, &data, &out);

    let expected = checkpoint.expected("logprobs.f64");
    let width = expected.shape[1];
    let expected = expected.f64();
    let mut largest = 0.0f64;
    for (i, tokens) in sequences.iter().enumerate() {
        let prompt = (i + 1).min(tokens.len() - 1);
        let rows = &expected[i * width + prompt - 1..i * width + tokens.len() - 1];
        let list = numbers(&found[i]["responses"][0]);
        assert_eq!(list.len(), rows.len());
        for (actual, expected) in list.iter().zip(rows) {
            largest = largest.max((actual - expected).abs());
        }
        assert_eq!(found[i]["line"], i + 1);
    }
    println!("largest difference {largest:e}");
    assert!(largest < 1e-5, "{largest:e}");

    let [error, pair, unprompted] = &found[sequences.len()..] else {
        panic!("{found:?}")
    };
    assert!(error["error"].is_string() && error["line"] == sequences.len() + 1);
    let alone = numbers(&found[0]["responses"][0]);
    for (a, b) in numbers(&pair["chosen"]).iter().zip(&alone) {
        assert!((a - b).abs() < 1e-5);
    }
    assert_eq!(numbers(&pair["rejected"]).len(), 2);
    assert!(unprompted["chosen"][0].is_null() && unprompted["chosen"][1].is_f64());
}

#[test]
fn a_model_without_its_head_is_refused() {
    let Some(checkpoint) = load("gpt2_lm") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let model = model(&checkpoint, folder.path());
    let config = folder.path().join("config.json");
    let mut json = checkpoint.config.clone();
    json["tie_word_embeddings"] = false.into();
    std::fs::write(config, json.to_string()).unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    std::fs::write(&data, r#"{"prompt": "t2", "responses": ["t3"]}"#).unwrap();
    let (data, out) = (data.to_str().unwrap(), out.to_str().unwrap());
    let error = fail(
        "logprobs",
        &["--model", &model, "--data", data, "--out", out],
    );
    assert!(error.contains("lm_head.weight"), "{error}");
    assert!(!Path::new(out).exists(), "nothing is left half-written");
}
