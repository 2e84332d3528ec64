//! Prompts from files of preferences and of prompts alone.

use example_tools::prompts::PromptFile;
use prefgrad::data::{ByteTokenizer, Tokenizer};

fn read(lines: &[&str]) -> PromptFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    PromptFile::read(&path, None).unwrap()
}

fn bytes(text: &str) -> Vec<u32> {
    ByteTokenizer.encode(text).unwrap()
}

#[test]
fn a_prompt_ends_where_its_answers_begin() {
    let file = read(&[
        r#"{"prompt": "One: "}"#,
        "",
        "nonsense",
        r#"{"prompt": "Two: ", "chosen": "yes", "rejected": "yet"}"#,
        r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: bc"}"#,
        r#"{"chosen": "no", "rejected": "dialogue"}"#,
        r#"{"prompt": [{"role": "user", "content": "Hi"}]}"#,
    ]);
    assert_eq!((file.lines, file.skipped.len()), (7, 1));
    assert_eq!(file.skipped[0].line, 3);
    let prompts = file
        .prompts(&file.records, &ByteTokenizer, (258, 99))
        .unwrap();
    let expected = [
        bytes("One: "),
        bytes("Two: "),
        bytes("\n\nHuman: a\n\nAssistant:"),
        bytes("\n\nHuman: Hi\n\nAssistant:"),
    ];
    assert_eq!(prompts.tokens, expected);
    assert_eq!(prompts.without, [6]);
    assert_eq!(prompts.shortened, 0);
}

#[test]
fn long_prompts_lose_their_left() {
    let file = read(&[r#"{"prompt": "abcdef"}"#, r#"{"prompt": "abc"}"#]);
    let prompts = file
        .prompts(&file.records, &ByteTokenizer, (258, 3))
        .unwrap();
    assert_eq!(prompts.tokens, [bytes("def"), bytes("abc")]);
    assert_eq!(prompts.shortened, 1);
}

#[test]
fn records_without_any_prompt_are_refused() {
    let file = read(&[r#"{"chosen": "no", "rejected": "dialogue"}"#]);
    let error = file
        .prompts(&file.records, &ByteTokenizer, (258, 3))
        .unwrap_err();
    assert!(
        error.to_string().contains("no record has a prompt"),
        "{error}"
    );
}
