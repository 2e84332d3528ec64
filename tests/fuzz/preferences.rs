//! Any bytes as a preference file: an error or records that keep what `read_records` promises, and
//! that tokenise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prefgrad::data::{
    Boundary, ByteTokenizer, ReadOptions, Record, RecordForm, TokeniseOptions, read_records,
    tokenise,
};

const CONTEXT: usize = 48;

fuzz_target!(|data: &[u8]| {
    for (for_scoring, prompts_alone) in [(false, false), (true, false), (true, true)] {
        let options = ReadOptions {
            for_scoring,
            prompts_alone,
            ..ReadOptions::default()
        };
        let Ok(read) = read_records(data, "fuzz", options) else {
            continue;
        };
        assert!(!read.records.is_empty());
        assert!(read.records.len() + read.skipped.len() <= read.lines);
        for record in &read.records {
            check(record, options);
        }
        for boundary in [Boundary::Longest, Boundary::Prompt] {
            check_tokens(&read.records, for_scoring, boundary);
        }
    }
});

fn check(record: &Record, options: ReadOptions<'_>) {
    let alone = record.form == RecordForm::Prompt;
    assert_eq!(record.responses.is_empty(), alone);
    assert!(options.prompts_alone || !alone);
    assert!(record.responses.iter().all(|text| !text.is_empty()));
    assert!(options.for_scoring || !record.preferences.is_empty());
    for preference in &record.preferences {
        assert_ne!(
            record.responses[preference.chosen],
            record.responses[preference.rejected]
        );
        assert!(preference.weight >= 0.0 && preference.weight.is_finite());
        assert!(preference.margin.is_finite());
    }
}

fn check_tokens(records: &[Record], for_scoring: bool, boundary: Boundary) {
    let options = TokeniseOptions {
        context: CONTEXT,
        vocab_size: ByteTokenizer::VOCAB_SIZE,
        for_scoring,
        boundary,
    };
    let Ok(tokenised) = tokenise(records, "fuzz", &ByteTokenizer, options) else {
        return;
    };
    assert_eq!(
        tokenised.records.len() + tokenised.dropped.len(),
        records.len()
    );
    for record in &tokenised.records {
        let longest = record.answers.iter().map(Vec::len).max().unwrap_or(0);
        assert!(record.prompt.len() + longest <= CONTEXT);
        assert!(record.answers.iter().all(|answer| !answer.is_empty()));
    }
}
