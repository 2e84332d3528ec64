//! Answers from a model's folder.

use std::path::Path;

use serde_json::Value;

use crate::models::{Models, models, small_sft};
use crate::run::{command, fail, succeed};

fn generate(models: &Models, out: &str, more: &[&str]) -> Vec<Value> {
    let (model, out) = (models.path("sft"), models.path(out));
    let mut arguments = vec!["--model", &model, "--out", &out, "--max-new-tokens", "16"];
    arguments.extend(more);
    succeed("generate", &arguments);
    let text = std::fs::read_to_string(Path::new(&out)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|l| l["text"].as_str().unwrap()).collect()
}

const PROMPT: [&str; 2] = ["--prompt", "Item 3: red? "];

#[test]
fn greedy_answers_are_all_the_same() {
    let lines = generate(
        models(),
        "greedy.jsonl",
        &[&PROMPT[..], &["--greedy", "--samples", "3"]].concat(),
    );
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["tokens"], lines[1]["tokens"]);
    assert_eq!(lines[0]["tokens"], lines[2]["tokens"]);
    assert!(lines[0]["logprob"].as_f64().unwrap() < 0.0);
    assert_eq!(lines[0]["prompt"], "Item 3: red? ");
}

#[test]
fn a_seed_gives_the_same_answers_and_another_others() {
    let sampled = |out: &str, seed: &str| {
        let more = ["--samples", "8", "--top-k", "20", "--seed", seed];
        generate(models(), out, &[&PROMPT[..], &more].concat())
    };
    let (first, again, other) = (
        sampled("first.jsonl", "7"),
        sampled("again.jsonl", "7"),
        sampled("other.jsonl", "8"),
    );
    assert_eq!(first, again);
    assert_ne!(texts(&first), texts(&other));
    for line in &first {
        let count = line["tokens"].as_array().unwrap().len();
        assert_eq!(line["logprobs"].as_array().unwrap().len(), count);
        assert_eq!(
            line["finish"] == "length",
            count == 16 && line["tokens"][15] != 256
        );
    }
}

#[test]
fn prompts_come_from_files_of_both_kinds() {
    let models = models();
    let file = models.path("prompts.jsonl");
    let lines = [
        r#"{"prompt": "Item 1: green? "}"#,
        r#"{"prompt": "Item 2: blue? ", "chosen": "Here is blue.", "rejected": "Have red."}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let answers = generate(models, "both.jsonl", &["--prompts", &file, "--greedy"]);
    let prompts: Vec<&Value> = answers.iter().map(|line| &line["prompt"]).collect();
    assert_eq!(prompts, ["Item 1: green? ", "Item 2: blue? "]);
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let model = models().path("sft");
    let refused = |more: &[&str], says: &str| {
        let mut arguments = vec!["--model", &model];
        arguments.extend(more);
        let error = fail("generate", &arguments);
        assert!(error.contains(says), "no {says:?} in: {error}");
    };
    let with_prompt = |more: &[&str], says: &str| refused(&[&PROMPT[..], more].concat(), says);
    with_prompt(&["--temperature", "0"], "temperature");
    with_prompt(&["--top-p", "1.5"], "top_p");
    with_prompt(&["--samples", "0"], "--samples");
    with_prompt(&["--max-new-tokens", "0"], "--max-new-tokens");
    with_prompt(&["--max-new-tokens", "60"], "context of 64");
    with_prompt(&["--greedy", "--top-k", "3"], "--greedy");
    refused(&[], "--prompt");
    let reward = models().path("missing");
    let error = fail("generate", &["--model", &reward, "--prompt", "a"]);
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn without_an_end_of_text_token_every_answer_is_cut_and_it_is_said() {
    let models = models();
    let (data, out) = (models.path("data.jsonl"), models.path("endless"));
    let tokenizer = models.path("characters.json");
    let mut arguments = small_sft(&data, &out);
    arguments.extend(["--tokenizer", &tokenizer]);
    succeed("train_policy", &arguments);
    let arguments = [
        "--model",
        &out,
        "--prompt",
        "Item",
        "--max-new-tokens",
        "9",
        "--samples",
        "4",
    ];
    let output = command("generate", &arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no end-of-text token"), "{error}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        printed.matches("   9 tokens, cut at the limit").count(),
        4,
        "{printed}"
    );
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let models = models();
    let broken = models.path("broken");
    std::fs::create_dir(&broken).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(
            Path::new(&models.path("sft")).join(name),
            Path::new(&broken).join(name),
        )
        .unwrap();
    }
    let text = std::fs::read_to_string(models.path("characters.json")).unwrap();
    let larger = text.replace("\"vocab\": {", "\"vocab\": {\"word\": 300, ");
    std::fs::write(Path::new(&broken).join("tokenizer.json"), larger).unwrap();
    let data = models.path("data.jsonl");
    for program in ["generate", "logprobs", "score"] {
        let mut arguments = vec!["--model", &broken];
        match program {
            "generate" => arguments.extend(["--prompt", "a"]),
            _ => arguments.extend(["--data", &data, "--out", "none"]),
        }
        let error = fail(program, &arguments);
        assert!(error.contains("knows 301 tokens"), "{program}: {error}");
    }
}
