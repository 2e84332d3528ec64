//! Real human comparisons, where the folder `shared/` with them stands beside the checkout.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use flate2::bufread::GzDecoder;
use prefgrad::data::{
    Batch, Boundary, ByteTokenizer, Capacity, PackOptions, ReadOptions, Records, Targets,
    TokenRecord, TokeniseOptions, pack_all, read_records, split_by_prompt, tokenise,
};

use crate::expected::check;

const HELPFUL: &str = "pairwise/hh-helpful-base-test.jsonl.gz";
const HARMLESS: &str = "pairwise/hh-harmless-base-test.jsonl.gz";
const RANKINGS: &str = "ranking/rankme-3way.jsonl.gz";

/// The records of a file of `shared/data`, or `None`, saying so, where it is absent.
fn read(name: &str, for_scoring: bool) -> Option<Records> {
    // Read at run time, since the tests may run elsewhere than where they were built.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)?;
    let path = root.join("../shared/data").join(name);
    let Ok(file) = File::open(&path) else {
        println!("skipped: there is no {}", path.display());
        return None;
    };
    let options = ReadOptions {
        for_scoring,
        ..ReadOptions::default()
    };
    let reader = BufReader::new(GzDecoder::new(BufReader::new(file)));
    Some(read_records(reader, name, options).unwrap())
}

fn tokens(read: &Records, context: usize) -> (Vec<TokenRecord>, usize) {
    let options = TokeniseOptions {
        context,
        vocab_size: ByteTokenizer::VOCAB_SIZE,
        for_scoring: false,
        boundary: Boundary::Longest,
    };
    let done = tokenise(&read.records, "real", &ByteTokenizer, options).unwrap();
    assert_eq!(done.records.len() + done.dropped.len(), read.records.len());
    (done.records, done.truncated.len())
}

fn pack(records: &[TokenRecord]) -> Vec<Batch> {
    let capacity = Capacity {
        tokens: 8192,
        segments: 256,
        answers: 256,
        pairs: 128,
        targets: 8192,
    };
    let options = PackOptions {
        targets: Targets::All,
        ..PackOptions::default()
    };
    // The check walks over all pairs of rows: a few short records are enough.
    let short = records.iter().filter(|record| record.prompt.len() < 200);
    let few: Vec<TokenRecord> = short.take(3).cloned().collect();
    for batch in pack_all(&few, capacity, options).unwrap() {
        check(&batch, &few, &options);
    }
    let batches = pack_all(records, capacity, options).unwrap();
    let lines = batches.iter().flat_map(|batch| &batch.lines);
    assert!(lines.eq(records.iter().map(|record| &record.line)));
    batches
}

fn ratio(batches: &[Batch]) -> f64 {
    let separate: usize = batches.iter().map(|b| b.tokens_without_sharing).sum();
    let shared: usize = batches.iter().map(|b| b.tokens.len()).sum();
    separate as f64 / shared as f64
}

#[test]
fn two_helpful_lines_compare_an_answer_with_itself() {
    let Some(helpful) = read(HELPFUL, false) else {
        return;
    };
    assert_eq!(helpful.lines, 2354);
    let skipped: Vec<usize> = helpful.skipped.iter().map(|skip| skip.line).collect();
    assert_eq!(skipped, [722, 2169]);
    for skip in &helpful.skipped {
        assert_eq!(skip.reason, "`chosen` and `rejected` are equal");
    }
    let scoring = read(HELPFUL, true).unwrap();
    assert_eq!((scoring.records.len(), scoring.skipped.len()), (2354, 0));
    assert!(scoring.records[721].preferences.is_empty());
    let harmless = read(HARMLESS, false).unwrap();
    assert_eq!((harmless.records.len(), harmless.skipped.len()), (2312, 0));
}

#[test]
fn sharing_prompts_saves_a_quarter_of_the_tokens() {
    let Some(helpful) = read(HELPFUL, false) else {
        return;
    };
    for context in [1024, 4096] {
        let (records, truncated) = tokens(&helpful, context);
        let batches = pack(&records);
        let ratio = ratio(&batches);
        let fill = batches.iter().map(|b| b.tokens.len()).sum::<usize>() as f64
            / (8192 * batches.len()) as f64;
        println!(
            "context {context}: {} records, {truncated} truncated, {} batches {:.1} % full, \
             {ratio:.3} times the tokens without sharing",
            records.len(),
            batches.len(),
            100.0 * fill
        );
        assert!(ratio > 1.3, "{ratio}");
    }
}

#[test]
fn no_prompt_stands_on_both_sides() {
    for name in [HELPFUL, HARMLESS] {
        let Some(read) = read(name, false) else {
            return;
        };
        let (train, held_out) = split_by_prompt(&read.records, 0.15, 0).unwrap();
        println!(
            "{name}: {} for training, {} held out",
            train.len(),
            held_out.len()
        );
        assert_eq!(train.len() + held_out.len(), read.records.len());
        assert!((280..=420).contains(&held_out.len()));
        // A dialogue's prompt, found here by its turns: all but what follows the last
        // "Assistant:" at which the texts still agree.
        let prompt = |index: &usize| -> String {
            let [chosen, rejected] = &read.records[*index].responses[..] else {
                panic!("a pair has two responses");
            };
            let ends = |text: &str| -> Vec<usize> {
                text.match_indices("\n\nAssistant:")
                    .map(|(at, mark)| at + mark.len())
                    .collect()
            };
            let end = ends(chosen)
                .into_iter()
                .rfind(|&end| rejected.get(..end) == chosen.get(..end))
                .expect("a shared turn");
            chosen[..end].to_owned()
        };
        let training: BTreeSet<String> = train.iter().map(prompt).collect();
        assert!(
            held_out
                .iter()
                .all(|index| !training.contains(&prompt(index)))
        );
    }
}

#[test]
fn rankings_with_ties_give_their_strict_orders() {
    let Some(rankings) = read(RANKINGS, false) else {
        return;
    };
    assert_eq!(rankings.records.len() + rankings.skipped.len(), 1800);
    let pairs: usize = rankings.records.iter().map(|r| r.preferences.len()).sum();
    println!(
        "{} rankings with {pairs} comparisons",
        rankings.records.len()
    );
    for record in &rankings.records {
        let weight: f32 = record.preferences.iter().map(|p| p.weight).sum();
        assert!((weight - 1.0).abs() < 1e-6);
    }
    let (records, _) = tokens(&rankings, 1024);
    pack(&records);
}
