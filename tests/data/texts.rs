//! From texts to tokens, and compressed files.

use std::io::{BufReader, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use prefgrad::data::{
    Boundary, ByteTokenizer, Preference, ReadOptions, Record, RecordForm, TokeniseOptions,
    Tokenised, Tokenizer, read_records, tokenise,
};
use prefgrad::{Error, Result};
use proptest::prelude::*;

/// Merges each "ab" into one token, so that a text's tokens depend on where it is cut.
struct Merging;

const MERGED: u32 = 300;

impl Tokenizer for Merging {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens: Vec<u32> = Vec::new();
        for byte in text.bytes().map(u32::from) {
            match tokens.last_mut() {
                Some(last) if *last == u32::from(b'a') && byte == u32::from(b'b') => *last = MERGED,
                _ => tokens.push(byte),
            }
        }
        Ok(tokens)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(ids
            .iter()
            .map(|&id| match id {
                MERGED => "ab".to_owned(),
                id => char::from(id as u8).to_string(),
            })
            .collect())
    }

    fn vocab_size(&self) -> usize {
        301
    }

    fn eos_token_id(&self) -> Option<u32> {
        Some(0)
    }

    fn pad_token_id(&self) -> Option<u32> {
        None
    }
}

#[test]
fn prompt_and_answer_are_one_text() {
    let line = r#"{"prompt": "xa", "chosen": "bc", "rejected": "cc"}"#;
    let read = read_records(line.as_bytes(), "f", ReadOptions::default()).unwrap();
    let options = TokeniseOptions {
        context: 9,
        vocab_size: 301,
        for_scoring: false,
        boundary: Boundary::Longest,
    };
    let done = tokenise(&read.records, "f", &Merging, options).unwrap();
    let [x, a, c] = [b'x', b'a', b'c'].map(u32::from);
    assert_eq!(done.records[0].prompt, [x]);
    assert_eq!(
        done.records[0].answers,
        [vec![MERGED, c, 0], vec![a, c, c, 0]]
    );
}

fn at_the_prompt(lines: &str, context: usize, for_scoring: bool) -> Tokenised {
    let read = ReadOptions {
        strict: true,
        for_scoring,
        ..ReadOptions::default()
    };
    let read = read_records(lines.as_bytes(), "f", read).unwrap();
    let options = TokeniseOptions {
        context,
        vocab_size: 301,
        for_scoring,
        boundary: Boundary::Prompt,
    };
    tokenise(&read.records, "f", &Merging, options).unwrap()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn at_the_prompt_answers_keep_what_they_begin_with_alike() {
    let done = at_the_prompt(
        r#"{"prompt": "xb", "chosen": "ccx", "rejected": "ccb"}"#,
        99,
        false,
    );
    assert_eq!(done.records[0].prompt, bytes("xb"));
    assert_eq!(done.records[0].answers, [bytes("ccx\0"), bytes("ccb\0")]);
    let one = at_the_prompt(r#"{"prompt": "xb", "responses": ["ccx"]}"#, 99, true);
    assert_eq!(one.records[0].prompt, bytes("xb"));
    assert_eq!(one.records[0].answers, [bytes("ccx\0")]);
}

#[test]
fn a_token_that_merges_across_the_boundary_belongs_to_the_answers() {
    let done = at_the_prompt(
        r#"{"prompt": "xa", "chosen": "bc", "rejected": "bx"}"#,
        99,
        false,
    );
    assert_eq!(done.records[0].prompt, bytes("x"));
    let c = u32::from(b'c');
    assert_eq!(done.records[0].answers[0], [MERGED, c, 0]);
    // Where only one response merges, the prompt is still what both share.
    let done = at_the_prompt(
        r#"{"prompt": "xa", "chosen": "bc", "rejected": "cc"}"#,
        99,
        false,
    );
    assert_eq!(done.records[0].prompt, bytes("x"));
    assert_eq!(
        done.records[0].answers,
        [vec![MERGED, c, 0], bytes("acc\0")]
    );
}

#[test]
fn whole_dialogues_are_prompts_up_to_the_last_shared_assistant_turn() {
    let shared = "\n\nHuman: a\n\nAssistant: x\n\nHuman: c\n\nAssistant:";
    let line = |a: &str, b: &str| serde_json::json!({"chosen": a, "rejected": b}).to_string();
    let pair = line(&format!("{shared} no x"), &format!("{shared} no c"));
    let done = at_the_prompt(&pair, 999, false);
    assert_eq!(done.records[0].prompt, bytes(shared));
    assert_eq!(
        done.records[0].answers,
        [bytes(" no x\0"), bytes(" no c\0")]
    );
    // The second turn stands in one text only, so it belongs to that text's answer.
    let start = "\n\nHuman: a\n\nAssistant:";
    let pair = line(
        &format!("{start} x\n\nAssistant: c"),
        &format!("{start} x\n\nHuman: c"),
    );
    let done = at_the_prompt(&pair, 999, false);
    assert_eq!(done.records[0].prompt, bytes(start));

    let lines = format!("{pair}\n{}", line("cx", "cc"));
    let done = at_the_prompt(&lines, 999, false);
    assert_eq!((done.records.len(), done.dropped[0].line), (1, 2));
    assert!(done.dropped[0].reason.contains("no prompt"));
    let done = at_the_prompt(&lines, 999, true);
    assert!(done.records[1].prompt.is_empty());
    assert_eq!(done.records[1].answers, [bytes("cx\0"), bytes("cc\0")]);
}

#[test]
fn a_prompt_keeps_a_token_before_its_answers() {
    let line = r#"{"prompt": "xbx", "chosen": "ccx", "rejected": "c"}"#;
    let done = at_the_prompt(line, 5, false);
    assert_eq!(done.truncated, [1]);
    assert_eq!(done.records[0].prompt, bytes("x"));
    let done = at_the_prompt(line, 4, true);
    assert!(
        done.dropped[0].reason.contains("leaves no room"),
        "{:?}",
        done.dropped
    );
}

proptest! {
    #[test]
    fn tokens_are_those_of_the_whole_text_from_its_right(
        prompt in "[abx]{0,12}",
        responses in prop::collection::vec("[abx]{1,8}", 1..4),
        context in 1usize..24,
        merging in any::<bool>(),
    ) {
        let tokenizer: &dyn Tokenizer = if merging { &Merging } else { &ByteTokenizer };
        let preferences = (1..responses.len())
            .map(|rejected| Preference { chosen: 0, rejected, weight: 0.5, margin: 0.0 })
            .collect();
        let form = RecordForm::Ranking;
        let record = Record { line: 1, form, prompt, responses, templated: false, preferences };
        let options = TokeniseOptions { context, vocab_size: 301, for_scoring: true, boundary: Boundary::Longest };
        let done = tokenise(std::slice::from_ref(&record), "f", tokenizer, options).unwrap();
        let whole: Vec<Vec<u32>> = record
            .responses
            .iter()
            .map(|response| {
                let mut tokens = tokenizer.encode(&format!("{}{response}", record.prompt)).unwrap();
                tokens.extend(tokenizer.eos_token_id());
                tokens
            })
            .collect();
        let shortest = whole.iter().map(Vec::len).min().unwrap();
        let shared = (0..shortest)
            .take_while(|&at| whole.iter().all(|tokens| tokens[at] == whole[0][at]))
            .count()
            .min(shortest - 1);
        let longest = whole.iter().map(Vec::len).max().unwrap();
        if longest - shared > context {
            prop_assert!(done.records.is_empty());
            prop_assert_eq!(done.dropped.len(), 1);
        } else {
            let found = &done.records[0];
            let cut = longest.saturating_sub(context);
            prop_assert_eq!(done.truncated.len(), usize::from(cut > 0));
            for (answer, tokens) in found.answers.iter().zip(&whole) {
                prop_assert_eq!([found.prompt.as_slice(), answer].concat(), &tokens[cut..]);
            }
            prop_assert_eq!(found.prompt.len(), shared - cut);
            for preference in &found.preferences {
                prop_assert_ne!(&whole[preference.chosen], &whole[preference.rejected]);
            }
        }
    }
}

#[test]
fn a_truncated_gzip_is_an_error_with_file_and_line() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    for line in 0..1000 {
        writeln!(
            encoder,
            r#"{{"prompt": "{line}", "chosen": "a", "rejected": "b"}}"#
        )
        .unwrap();
    }
    let whole = encoder.finish().unwrap();
    let read = |bytes: &[u8]| {
        let reader = BufReader::new(GzDecoder::new(bytes));
        read_records(reader, "pairs.jsonl.gz", ReadOptions::default())
    };
    assert_eq!(read(&whole).unwrap().records.len(), 1000);
    let error = read(&whole[..whole.len() / 2]).unwrap_err();
    assert!(matches!(error, Error::Data { .. }));
    let message = error.to_string();
    let line = message.strip_prefix("pairs.jsonl.gz:").unwrap();
    let line: usize = line.split(':').next().unwrap().parse().unwrap();
    assert!((490..=510).contains(&line), "{message}");
    // Compressed bytes read as they are.
    let error = read_records(whole.as_slice(), "pairs.jsonl", ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("not UTF-8"), "{error}");
}
