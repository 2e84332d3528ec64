//! Any bytes as a preference file: an error or records that keep what `read_records` promises.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prefgrad::data::{ReadOptions, Record, read_records};

fuzz_target!(|data: &[u8]| {
    for for_scoring in [false, true] {
        let options = ReadOptions {
            for_scoring,
            ..ReadOptions::default()
        };
        let Ok(read) = read_records(data, "fuzz", options) else {
            continue;
        };
        assert!(!read.records.is_empty());
        assert!(read.records.len() + read.skipped.len() <= read.lines);
        for record in &read.records {
            check(record, for_scoring);
        }
    }
});

fn check(record: &Record, for_scoring: bool) {
    assert!(record.responses.iter().all(|text| !text.is_empty()));
    assert!(for_scoring || !record.preferences.is_empty());
    for preference in &record.preferences {
        assert_ne!(
            record.responses[preference.chosen],
            record.responses[preference.rejected]
        );
        assert!(preference.weight >= 0.0 && preference.weight.is_finite());
        assert!(preference.margin.is_finite());
    }
}
