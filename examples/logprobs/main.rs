//! How likely a language model finds the answers of a file: `--help` says how.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use example_tools::files::OutputFile;
use example_tools::model_folder::{LoadedTokenizer, read_config};
use example_tools::progress::{Progress, StepStatus};
use example_tools::scoring::Scoring;
use prefgrad::Gpu;
use prefgrad::data::{Batch, Boundary, PackOptions, RecordForm, Targets, TokenRecord, pack_all};
use prefgrad::model::{Head, ModelConfig, Policy, PolicyOptions, Purpose, load_weights};
use prefgrad::train::{AnswerLogprobs, capacity_for};
use serde_json::{Value, json};

/// Writes the log-probability of every answer token of a file, given its prompt, on any GPU.
///
/// One line for each line of --data that is not blank: {"line": n, "chosen": [...], "rejected":
/// [...]}, or {"line": n, "responses": [[...], ...]} for a list of responses, or {"line": n,
/// "error": "..."} where a line cannot be used. Each list holds one number a token, in nats, the
/// end-of-text token included; its sum is the log-probability of the whole answer, what DPO
/// compares with a reference. Numbers equal those of the model's class in `transformers`.
///
/// Prompt and answer are tokenised as one text. A token that merges the prompt's end with the
/// answer's beginning belongs to the answer, and the prompt is what all answers of the line still
/// share. In HH-RLHF's form without "prompt", the prompt reaches up to and includes the last
/// "Assistant:" that both texts share; where they share none, there is no prompt, and the first
/// token of each text, which nothing predicts, is null.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The model's folder (config.json, model.safetensors, tokenizer.json; without it, bytes).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The prompts and answers, JSON Lines (also .gz), .json or .parquet, in the forms that training takes.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the log-probabilities go; /dev/stdout to see them.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Divides the logits before the softmax: the temperature that answers are sampled at.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Packed tokens of one batch.
    #[arg(long, default_value_t = 2048)]
    batch_tokens: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let gpu = Gpu::new()?;
    let tokenizer = LoadedTokenizer::of_model(&args.model)?;
    let config = read_config(&args.model, &*tokenizer)?;
    let data = Scoring::read(&args.data, &tokenizer, &config, Boundary::Prompt)?;
    let policy = policy(&gpu, &args, &config, data.largest())?;
    let out = OutputFile::create(&args.out)?;
    let logprobs = logprobs(&policy, data.records())?;
    data.write(
        out,
        |record, index| {
            let mut value = match record.form {
                RecordForm::Pair => {
                    json!({"chosen": logprobs[index][0], "rejected": logprobs[index][1]})
                }
                RecordForm::Ranking | RecordForm::Prompt => json!({ "responses": logprobs[index] }),
            };
            value["line"] = record.line.into();
            value
        },
        |line, reason| json!({"line": line, "error": reason}),
    )?;
    eprintln!("{}", data.summary());
    Ok(())
}

fn policy(gpu: &Gpu, args: &Args, config: &ModelConfig, largest: usize) -> Result<Policy> {
    let tokens = args.batch_tokens.max(largest);
    let policy = Policy::new(
        gpu,
        config,
        &[Head::Language],
        capacity_for(tokens, true),
        Purpose::Score,
        PolicyOptions {
            temperature: args.temperature,
            ..PolicyOptions::default()
        },
    )?;
    if !load_weights(gpu, policy.parameters(), &args.model)? {
        bail!(
            "{}: config.json says that the language head is not tied to the token table, and \
             model.safetensors has no `lm_head.weight`; it may be a reward model",
            args.model.display()
        );
    }
    Ok(policy)
}

/// The log-probabilities of the tokens of every response of every record.
fn logprobs(policy: &Policy, records: &[TokenRecord]) -> Result<Vec<Vec<Vec<Value>>>> {
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::Answers,
        ..PackOptions::default()
    };
    let batches = pack_all(records, policy.batch().capacity, options)?;
    let recorded = AnswerLogprobs::new(policy)?;
    let mut bar = Progress::new("logprobs", 0, batches.len() as u64);
    let mut all: Vec<Vec<Vec<Value>>> = Vec::with_capacity(records.len());
    for (done, batch) in (1..).zip(&batches) {
        let first = all.len();
        all.resize(first + batch.lines.len(), Vec::new());
        let tokens = recorded.of_tokens(policy, batch)?;
        for (answer, tokens) in batch.answers.iter().zip(&tokens) {
            let record = first + answer.record as usize;
            let line = records[record].line;
            if tokens.iter().any(|logprob| !logprob.is_finite()) {
                bail!("line {line}: a log-probability is not finite; look at the model's weights");
            }
            let len = records[record].answers[answer.index as usize].len();
            let unpredicted = len - tokens.len();
            let values = vec![Value::Null; unpredicted].into_iter();
            all[record].push(values.chain(tokens.iter().map(|&x| json!(x))).collect());
        }
        bar.update(status(done, batch, &tokens));
    }
    bar.finish();
    Ok(all)
}

/// The mean surprisal of a batch's tokens stands for its loss.
fn status(step: u64, batch: &Batch, tokens: &[Vec<f32>]) -> StepStatus {
    let logprobs = tokens.iter().flatten().map(|&logprob| f64::from(logprob));
    StepStatus {
        step,
        tokens: batch.tokens.len() as u64,
        loss: -logprobs.sum::<f64>() / batch.targets.len().max(1) as f64,
        accuracy: None,
    }
}
