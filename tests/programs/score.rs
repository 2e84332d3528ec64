//! Scoring: a line for each line, whatever it holds.

use serde_json::Value;

use crate::run::{comparisons, fail, small_training, succeed};

#[test]
fn every_line_gets_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, model, mixed, out) = (
        path("data.jsonl"),
        path("model"),
        path("mixed.jsonl"),
        path("out.jsonl"),
    );
    comparisons(data.as_ref(), 60);
    succeed("train_reward", &small_training(&data, &model));
    let lines = [
        r#"{"prompt": "Red? ", "chosen": "Here is red.", "rejected": "No."}"#,
        r#"{"prompt": "Red? ", "chosen": "Same.", "rejected": "Same."}"#,
        "not JSON",
        r#"{"prompt": "Blue? ", "responses": ["Here is blue.", "No.", "Maybe."], "ranks": [1, 3, 2]}"#,
        r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#,
    ];
    std::fs::write(&mixed, lines.join("\n")).unwrap();
    succeed(
        "score",
        &["--model", &model, "--data", &mixed, "--out", &out],
    );
    let text = std::fs::read_to_string(&out).unwrap();
    let scores: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(scores.len(), 5);
    assert!(scores[0]["chosen"].is_f64() && scores[0]["rejected"].is_f64());
    assert_eq!(scores[1]["chosen"], scores[1]["rejected"]);
    assert!(scores[2]["error"].is_string());
    assert_eq!(scores[3]["rewards"].as_array().unwrap().len(), 3);
    assert!(scores[4]["chosen"].is_f64());

    // Company changes nothing: alone, the first line scores the same.
    std::fs::write(&mixed, lines[0]).unwrap();
    succeed(
        "score",
        &["--model", &model, "--data", &mixed, "--out", &out],
    );
    let alone: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let difference = alone["chosen"].as_f64().unwrap() - scores[0]["chosen"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{difference}");
}

#[test]
fn a_folder_without_a_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let error = fail("score", &["--model", place, "--data", "x", "--out", "y"]);
    assert!(error.contains("config.json"), "{error}");
}
