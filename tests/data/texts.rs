//! From texts to tokens, and compressed files.

use std::io::{BufReader, Write};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use prefgrad::data::{
    ByteTokenizer, Preference, ReadOptions, Record, RecordForm, TokeniseOptions, Tokenizer,
    read_records, tokenise,
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
    };
    let done = tokenise(&read.records, "f", &Merging, options).unwrap();
    let [x, a, c] = [b'x', b'a', b'c'].map(u32::from);
    assert_eq!(done.records[0].prompt, [x]);
    assert_eq!(
        done.records[0].answers,
        [vec![MERGED, c, 0], vec![a, c, c, 0]]
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
        let record = Record { line: 1, form, prompt, responses, preferences };
        let options = TokeniseOptions { context, vocab_size: 301, for_scoring: true };
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
