//! Tokenizers in Hugging Face's format.

use example_tools::hf_tokenizer::HfTokenizer;
use prefgrad::Error;
use prefgrad::data::Tokenizer;

use crate::shared;

/// Word-level, and asks for truncation, padding and an end token.
const SMALL: &str = r#"{
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 4, "pad_type_id": 0, "pad_token": "<pad>"},
    "added_tokens": [
        {"id": 3, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true},
        {"id": 9, "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {"type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [3], "tokens": ["</s>"]}}},
    "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2, "</s>": 3, "<pad>": 9},
        "unk_token": "?"}
}"#;

fn small(config: Option<&str>) -> prefgrad::Result<HfTokenizer> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), SMALL).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    HfTokenizer::load(folder.path())
}

#[test]
fn nothing_is_cut_padded_or_added() {
    let tokenizer = small(None).unwrap();
    assert_eq!(tokenizer.encode("a b a c").unwrap(), [0, 1, 0, 2]);
    assert_eq!(tokenizer.encode("a</s>b").unwrap(), [0, 3, 1]);
    assert_eq!(tokenizer.decode(&[0, 1, 3]).unwrap(), "a b");
    assert_eq!(tokenizer.vocab_size(), 10);
    let error = tokenizer.decode(&[0, 7]).unwrap_err();
    assert!(matches!(error, Error::Model { .. }), "{error}");
}

#[test]
fn special_tokens_come_from_the_configuration_then_from_usual_names() {
    let ids = |config| {
        let tokenizer = small(config).unwrap();
        (tokenizer.eos_token_id(), tokenizer.pad_token_id())
    };
    assert_eq!(ids(None), (Some(3), Some(9)));
    assert_eq!(ids(Some(r#"{"eos_token": null}"#)), (Some(3), Some(9)));
    let config = r#"{"eos_token": {"content": "<pad>"}, "pad_token": "a"}"#;
    assert_eq!(ids(Some(config)), (Some(9), Some(0)));
    let error = small(Some(r#"{"eos_token": "<eot>"}"#)).unwrap_err();
    assert!(error.to_string().contains("<eot>"), "{error}");
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = HfTokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, "{}").unwrap();
    let error = HfTokenizer::load(&path).unwrap_err();
    assert!(matches!(error, Error::Model { .. }), "{error}");
}

#[test]
fn gpt2() {
    let Some(path) = shared("tokenizer/gpt2-tokenizer.json") else {
        return;
    };
    let tokenizer = HfTokenizer::load(&path).unwrap();
    assert_eq!(tokenizer.vocab_size(), 50257);
    assert_eq!(tokenizer.eos_token_id(), Some(50256));
    assert_eq!(tokenizer.pad_token_id(), None);
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [15496, 995]);
    let text = "\n\nHuman: naïve 123 \u{1F600}?  \n\nAssistant: yes";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(
        tokenizer.encode("a<|endoftext|>").unwrap(),
        [64, tokenizer.eos_token_id().unwrap()]
    );
}
