//! Scores the responses of a file with a reward model: `--help` says how.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use example_tools::files::OutputFile;
use example_tools::model_folder::{LoadedTokenizer, read_config};
use example_tools::scoring::Scoring;
use prefgrad::Gpu;
use prefgrad::data::{Boundary, RecordForm};
use prefgrad::model::{RewardModel, load_weights};
use prefgrad::train::{capacity_for, score_records};
use serde_json::json;

/// Scores every response of a file with a reward model, on any GPU.
///
/// Writes one line for each line of --data that is not blank: {"chosen": r, "rejected": r}, or
/// {"rewards": [...]} for a list of responses, or {"error": "..."} where a line cannot be used.
/// Rewards equal those of the model's class in `transformers`.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The model's folder (config.json, model.safetensors, tokenizer.json; without it, bytes).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to score, JSON Lines (also .gz), .json or .parquet, in the forms that training takes.
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
    let tokenizer = LoadedTokenizer::of_model(&args.model)?;
    let config = read_config(&args.model, &*tokenizer)?;
    let data = Scoring::read(&args.data, &tokenizer, &config, Boundary::Longest)?;
    let tokens = args.batch_tokens.max(data.largest());
    let model = RewardModel::to_score(&gpu, &config, capacity_for(tokens, false))?;
    if !load_weights(&gpu, model.parameters(), &args.model)? {
        anyhow::bail!(
            "{} holds a language model: it has no `score.weight`; train a reward head first",
            args.model.display()
        );
    }
    let out = OutputFile::create(&args.out)?;
    let rewards = score_records(&model, data.records())?;
    data.write(
        out,
        |record, index| match record.form {
            RecordForm::Pair => json!({"chosen": rewards[index][0], "rejected": rewards[index][1]}),
            RecordForm::Ranking | RecordForm::Prompt => json!({ "rewards": rewards[index] }),
        },
        |_, reason| json!({ "error": reason }),
    )?;
    eprintln!("{}", data.summary());
    Ok(())
}
