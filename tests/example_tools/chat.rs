//! Chat templates and their records against `transformers` and TRL (`tests/fixtures/make_chat.py`).

use std::path::{Path, PathBuf};

use example_tools::model_folder::LoadedTokenizer;
use prefgrad::data::{
    Boundary, ChatTemplate, Message, ReadOptions, Record, RecordForm, TokeniseOptions,
    read_records, tokenise,
};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/chat")
        .join(name)
}

fn templates() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("cases.json")).unwrap();
    let mut cases: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(cases["templates"].take()).unwrap()
}

/// A model's folder with the template in one of the places where it can stand.
fn folder(case: &Value) -> (tempfile::TempDir, LoadedTokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let template = case["chat_template"].as_str().unwrap();
    let mut config = json!({"bos_token": {"content": case["bos_token"]}, "add_bos_token": false});
    let mut older = json!({"eos_token": case["eos_token"]});
    match case["name"].as_str().unwrap() {
        "chatml" => config["chat_template"] = template.into(),
        "mistral" => {
            config["chat_template"] = json!([
                {"name": "rag", "template": "{{ nothing }}"},
                {"name": "default", "template": template},
            ]);
        }
        _ => {
            config["chat_template"] = "not this one".into();
            std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        }
    }
    older["bos_token"] = "not this one".into();
    let write = |name: &str, value: &Value| {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    };
    write("tokenizer_config.json", &config);
    write("special_tokens_map.json", &older);
    std::fs::copy(
        fixture("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    let tokenizer = LoadedTokenizer::of_model(folder.path()).unwrap();
    (folder, tokenizer)
}

fn record(case: &Value, template: &dyn ChatTemplate) -> prefgrad::Result<Record> {
    let options = ReadOptions {
        strict: true,
        template: Some(template),
        ..ReadOptions::default()
    };
    let line = case["record"].to_string();
    Ok(read_records(line.as_bytes(), "f", options)?
        .records
        .remove(0))
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let mut refused = 0;
    for case in templates() {
        let (_folder, tokenizer) = folder(&case);
        let template = tokenizer.template().unwrap();
        for text in case["texts"].as_array().unwrap() {
            let messages: Vec<Message> = text["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| Message::new(m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
                .collect();
            for (key, open) in [("text", false), ("opened", true)] {
                let found = template.render(&messages, open);
                match text[key].as_str() {
                    Some(expected) => assert_eq!(found.unwrap(), expected, "{}", case["name"]),
                    None => {
                        refused += 1;
                        let error = found.unwrap_err().to_string();
                        assert!(error.contains("refuses the messages: "), "{error}");
                    }
                }
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn records_are_split_as_trl_does() {
    let mut refused = 0;
    for case in templates() {
        let (_folder, tokenizer) = folder(&case);
        for split in case["records"].as_array().unwrap() {
            let found = record(split, tokenizer.template().unwrap());
            let split = &split["split"];
            if split.is_null() {
                refused += 1;
                let error = found.unwrap_err().to_string();
                assert!(
                    error.contains("f:1: ") && error.contains("refuses"),
                    "{error}"
                );
                continue;
            }
            let found = found.unwrap();
            assert!(found.templated);
            assert_eq!(found.prompt, split["prompt"].as_str().unwrap());
            assert_eq!(found.responses[0], split["chosen"].as_str().unwrap());
            assert_eq!(found.responses[1], split["rejected"].as_str().unwrap());
        }
    }
    assert!(refused > 0);
}

#[test]
fn tokens_are_those_of_trls_dpo_trainer() {
    for case in templates() {
        let (_folder, tokenizer) = folder(&case);
        for tokens in case["tokens"].as_array().unwrap() {
            let record = record(tokens, tokenizer.template().unwrap()).unwrap();
            let options = TokeniseOptions {
                context: 999,
                vocab_size: tokenizer.vocab_size(),
                for_scoring: false,
                boundary: Boundary::Prompt,
            };
            let done = tokenise(&[record], "f", &*tokenizer, options).unwrap();
            let found = &done.records[0];
            let expected =
                |key: &str| -> Vec<u32> { serde_json::from_value(tokens[key].clone()).unwrap() };
            let place = format!("{} {}", case["name"], tokens["record"]);
            assert_eq!(found.prompt, expected("prompt"), "{place}");
            assert_eq!(found.answers[0], expected("chosen"), "{place}");
            assert_eq!(found.answers[1], expected("rejected"), "{place}");
        }
    }
}

#[test]
fn prompts_alone_end_where_the_answer_begins() {
    let cases = templates();
    let case = cases.iter().find(|case| case["name"] == "tools").unwrap();
    let (_folder, tokenizer) = folder(case);
    let options = ReadOptions {
        prompts_alone: true,
        template: tokenizer.template(),
        ..ReadOptions::default()
    };
    let line = r#"{"prompt": [{"role": "user", "content": " Hi "}]}"#;
    let read = read_records(line.as_bytes(), "f", options).unwrap();
    assert_eq!(read.records[0].form, RecordForm::Prompt);
    assert_eq!(read.records[0].prompt, "<USER>Hi<assistant><think>\n");
    let tokens = tokenizer.opened_by(" Hi ").unwrap();
    assert_eq!(read.records[0].prompt_tokens(&*tokenizer).unwrap(), tokens);
    assert_ne!(tokens.first().copied(), tokenizer.bos_token_id());
}

#[test]
fn texts_begin_with_the_token_that_the_tokenizer_puts_there() {
    let tokenizer = LoadedTokenizer::load(Some(&fixture("tokenizer.json"))).unwrap();
    assert!(tokenizer.template().is_none());
    let (bos, eos) = (tokenizer.bos_token_id().unwrap(), tokenizer.eos_token_id());
    assert_ne!(Some(bos), eos);
    let plain = tokenizer.encode("so").unwrap();
    let whole = [&[bos][..], &plain].concat();
    assert_eq!(tokenizer.encode_text("so").unwrap(), whole);
    assert_eq!(tokenizer.encode_text("<s>so").unwrap(), whole);
    let mut tokens = tokenizer.encode_text("abcdef").unwrap();
    let end = tokens[tokens.len() - 2..].to_vec();
    tokenizer.shorten(&mut tokens, 3);
    assert_eq!(tokens, [&[bos][..], &end].concat());
    tokenizer.shorten(&mut tokens, 1);
    assert_eq!(tokens, [bos]);
    tokenizer.shorten(&mut tokens, 0);
    assert!(tokens.is_empty());
}

#[test]
fn a_model_keeps_what_belongs_to_its_tokenizer() {
    let cases = templates();
    let case = cases.iter().find(|case| case["name"] == "llama3").unwrap();
    let (folder, tokenizer) = folder(case);
    let out = tempfile::tempdir().unwrap();
    tokenizer.copy_into(out.path()).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ] {
        let read = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(folder.path()), read(out.path()), "{name}");
    }
    tokenizer.copy_into(folder.path()).unwrap();
    assert!(LoadedTokenizer::of_model(folder.path()).is_ok());
}

#[test]
fn answers_end_at_each_token_that_the_model_lists() {
    let (folder, tokenizer) = folder(&templates()[1]);
    let eos = tokenizer.eos_token_id().unwrap();
    let stops = |config: &str| {
        std::fs::write(folder.path().join("generation_config.json"), config).unwrap();
        tokenizer.stop_tokens(50)
    };
    assert_eq!(tokenizer.stop_tokens(50).unwrap(), [eos]);
    assert_eq!(stops("{}").unwrap(), [eos]);
    assert_eq!(stops(r#"{"eos_token_id": 49}"#).unwrap(), [eos, 49]);
    let listed = format!(r#"{{"eos_token_id": [{eos}, 1, 49]}}"#);
    assert_eq!(stops(&listed).unwrap(), [1, eos, 49]);
    for wrong in [r#"{"eos_token_id": [1, 50]}"#, r#"{"eos_token_id": "x"}"#] {
        let error = stops(wrong).unwrap_err().to_string();
        assert!(error.contains("no token of the model's 50"), "{error}");
    }
    assert!(stops("{").is_err());
}

#[test]
fn what_is_no_template_is_refused() {
    let (folder, _) = folder(&templates()[0]);
    for (config, expected) in [
        (r#"{"chat_template": "{% for %}"}"#, "cannot be read"),
        (
            r#"{"chat_template": [{"name": "rag", "template": ""}]}"#,
            "`default`",
        ),
        (r#"{"chat_template": 3}"#, "`default`"),
        ("[]", "not a JSON object"),
    ] {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let error = LoadedTokenizer::of_model(folder.path()).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
