//! Scores the responses of a file with a reward model: `--help` says how.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use example_tools::files::{OutputFile, open_text};
use example_tools::hf_tokenizer::HfTokenizer;
use prefgrad::Gpu;
use prefgrad::data::{
    Boundary, ByteTokenizer, ReadOptions, Record, RecordForm, TokeniseOptions, Tokenizer,
    read_records, tokenise,
};
use prefgrad::model::{Gpt2Config, RewardModel, load_weights};
use prefgrad::train::{capacity_for, score_records};
use serde_json::{Value, json};

/// Scores every response of a file with a reward model, on any GPU.
///
/// Writes one line for each line of --data that is not blank: {"chosen": r, "rejected": r}, or
/// {"rewards": [...]} for a list of responses, or {"error": "..."} where a line cannot be used.
/// Rewards equal those of `transformers`' GPT2ForSequenceClassification.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The model's folder (config.json, model.safetensors, tokenizer.json; without it, bytes).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to score, JSON Lines or .gz, in the forms that training takes.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the rewards go; /dev/stdout to see them.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Packed tokens of one batch.
    #[arg(long, default_value_t = 2048)]
    batch_tokens: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let gpu = Gpu::new()?;
    let config = Gpt2Config::read(&args.model)?;
    let tokenizer: Box<dyn Tokenizer> = if args.model.join("tokenizer.json").exists() {
        Box::new(HfTokenizer::load(&args.model)?)
    } else {
        Box::new(ByteTokenizer)
    };
    let place = args.data.display().to_string();
    let options = ReadOptions {
        strict: false,
        for_scoring: true,
    };
    let read = read_records(open_text(&args.data)?, &place, options)?;
    let options = TokeniseOptions {
        context: config.n_positions,
        vocab_size: config.vocab_size,
        for_scoring: true,
        boundary: Boundary::Longest,
    };
    let tokenised = tokenise(&read.records, &place, tokenizer.as_ref(), options)?;
    let tokens = args.batch_tokens.max(longest(&tokenised.records));
    let model = RewardModel::to_score(&gpu, &config, capacity_for(tokens, false))?;
    if !load_weights(&gpu, model.parameters(), &args.model)? {
        anyhow::bail!(
            "{} holds a language model: it has no `score.weight`; train a reward head first",
            args.model.display()
        );
    }
    let rewards = score_records(&model, &tokenised.records)?;

    let mut lines: HashMap<usize, Value> = HashMap::new();
    for skipped in read.skipped.iter().chain(&tokenised.dropped) {
        lines.insert(skipped.line, json!({ "error": skipped.reason }));
    }
    let forms: HashMap<usize, &Record> = read.records.iter().map(|r| (r.line, r)).collect();
    for (record, rewards) in tokenised.records.iter().zip(&rewards) {
        let value = match forms.get(&record.line).map(|record| record.form) {
            Some(RecordForm::Pair) => json!({"chosen": rewards[0], "rejected": rewards[1]}),
            _ => json!({ "rewards": rewards }),
        };
        lines.insert(record.line, value);
    }
    let mut out = OutputFile::create(&args.out)?;
    for line in 1..=read.lines {
        if let Some(value) = lines.get(&line) {
            writeln!(out, "{value}")?;
        }
    }
    out.commit()?;
    eprintln!(
        "{} records scored, {} could not be; {} prompts lost their beginning to fit {} tokens",
        rewards.len(),
        read.skipped.len() + tokenised.dropped.len(),
        tokenised.truncated.len(),
        config.n_positions
    );
    Ok(())
}

/// The tokens of the largest record: a batch must hold it.
fn longest(records: &[prefgrad::data::TokenRecord]) -> usize {
    let tokens = |r: &prefgrad::data::TokenRecord| {
        r.prompt.len() + r.answers.iter().map(Vec::len).sum::<usize>()
    };
    records.iter().map(tokens).max().unwrap_or(1)
}
