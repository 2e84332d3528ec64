//! Chat messages, a model's own template, and data in other files than JSON Lines.

use std::path::Path;

use serde_json::{Value, json};

use crate::models::{models, small_sft};
use crate::run::{fail, succeed};

/// Ends each message with the token that `generation_config.json` lists beside the end of text.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}<|im_end|>{% endfor %}\
                        {% if add_generation_prompt %}a{% endif %}";
const IM_END: u32 = 3;

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    path.join(name).to_str().unwrap().to_owned()
}

/// A list of conversations in which the colour asked for is named.
fn conversations(path: &str) {
    let colours = ["red", "green", "blue", "white"];
    let say = |role: &str, content: String| json!({"role": role, "content": content});
    let records: Vec<Value> = (0..80)
        .map(|i| {
            let asked = say("user", format!("Item {i}: {}?", colours[i % 4]));
            let answer = |at: usize| say("assistant", format!("It is {}.", colours[at % 4]));
            json!({"chosen": [asked, answer(i)], "rejected": [asked, answer(i + 1)]})
        })
        .collect();
    std::fs::write(path, json!(records).to_string()).unwrap();
}

#[test]
fn a_model_learns_and_answers_in_its_own_template() {
    let models = models();
    let (folder, data, out) = (
        models.path("template"),
        models.path("chats.json"),
        models.path("chat_sft"),
    );
    conversations(&data);
    std::fs::create_dir(&folder).unwrap();
    let beside = |name: &str| Path::new(&folder).join(name);
    std::fs::copy(fixture("chat/tokenizer.json"), beside("tokenizer.json")).unwrap();
    std::fs::write(beside("chat_template.jinja"), TEMPLATE).unwrap();
    std::fs::write(beside("tokenizer_config.json"), r#"{"eos_token": "</s>"}"#).unwrap();
    let generation = json!({ "eos_token_id": [1, IM_END] }).to_string();
    std::fs::write(beside("generation_config.json"), &generation).unwrap();

    let mut arguments = small_sft(&data, &out);
    arguments.extend(["--tokenizer", &folder]);
    succeed("train_policy", &arguments);
    let saved = |name: &str| std::fs::read_to_string(Path::new(&out).join(name)).unwrap();
    assert_eq!(saved("chat_template.jinja"), TEMPLATE);
    assert_eq!(saved("generation_config.json"), generation);

    // What it learnt to end answers with ends them, though it is not the end of text.
    let answers = models.path("chat_answers.jsonl");
    let asked = ["--prompt", "Item 3: red?", "--chat", "--samples", "8"];
    let mut arguments = vec!["--model", &out, "--out", &answers];
    arguments.extend(["--max-new-tokens", "24"]);
    arguments.extend(asked);
    succeed("generate", &arguments);
    let lines = std::fs::read_to_string(&answers).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["prompt"], "uItem 3: red?a");
    let ended: Vec<&Value> = lines.iter().filter(|l| l["finish"] == "stop").collect();
    assert!(!ended.is_empty());
    for line in ended {
        assert_eq!(line["tokens"].as_array().unwrap().last().unwrap(), IM_END);
    }
}

#[test]
fn parquet_scores_as_its_twin_in_json_lines() {
    let models = models();
    let (model, out) = (models.path("reward"), models.path("twins.jsonl"));
    let score = |name: &str| {
        let data = fixture(name);
        succeed(
            "score",
            &["--model", &model, "--data", &data, "--out", &out],
        );
        std::fs::read_to_string(&out).unwrap()
    };
    let expected = score("records/explicit.jsonl");
    assert_eq!(expected.lines().count(), 4);
    assert!(expected.contains("\"chosen\""), "{expected}");
    assert_eq!(score("records/explicit.parquet"), expected);
    assert_eq!(score("records/explicit.json"), expected);
    let data = fixture("records/zstd.parquet");
    let error = fail(
        "score",
        &["--model", &model, "--data", &data, "--out", &out],
    );
    assert!(error.contains("ZSTD"), "{error}");
}
