//! Trains a reward model on a file of human comparisons: `--help` says how.

mod args;

use std::path::Path;

use anyhow::{Result, bail};
use clap::Parser;
use example_tools::files::output_folder;
use example_tools::memory::plan_memory;
use example_tools::model_folder::{LoadedTokenizer, config_of, new_config_of, new_gpt2};
use example_tools::record_file::open_records;
use example_tools::report::Report;
use example_tools::training::{Outcome, interrupt_flag, train};
use prefgrad::Gpu;
use prefgrad::data::{
    Boundary, ReadOptions, Record, Skipped, TokenRecord, TokeniseOptions, Tokenizer, read_records,
    split_by_prompt, tokenise,
};
use prefgrad::model::{ModelConfig, load_weights, save_reward_model};
use prefgrad::train::{RewardTrainer, checkpoint, score_records};

use args::Args;

/// The records of each part of the data, as texts and as tokens.
struct Parts {
    train: Vec<Record>,
    held_out: Vec<Record>,
    train_tokens: Vec<TokenRecord>,
    validation_tokens: Vec<TokenRecord>,
    held_out_tokens: Vec<TokenRecord>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    output_folder(&args.out)?;
    let gpu = Gpu::new()?;
    println!(
        "device     {} ({})",
        gpu.info().name,
        gpu.info().driver_info
    );
    let tokenizer = tokenizer(&args)?;
    let config = config(&args, &*tokenizer)?;
    let parts = read_parts(&args, &tokenizer, &config)?;
    plan_memory(&gpu, args.memory, |gpu| {
        new_trainer(gpu, &args, &config, &parts).map(drop)
    })?;
    let mut trainer = trainer(&gpu, &args, &config, &parts)?;
    println!(
        "model      {} parameters: {} layers, width {}, {} heads, context {}, vocabulary {}",
        trainer.model().parameters().count(),
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.max_position_embeddings,
        config.vocab_size
    );
    let interrupted = interrupt_flag()?;
    if train(&mut trainer, &args.out, args.checkpoint_every, &interrupted)? == Outcome::Interrupted
    {
        println!(
            "stopped after update {}: go on with --resume",
            trainer.updates()
        );
        return Ok(());
    }
    save(&args, &tokenizer, &trainer)?;
    if let Some(best) = trainer.best() {
        println!(
            "kept the weights of step {} (lowest validation loss)",
            best.step
        );
    }
    let rewards = score_records(trainer.model(), &parts.held_out_tokens)?;
    let training_texts: Vec<&Record> = parts.train.iter().collect();
    let report = Report::new(
        &training_texts,
        &parts.held_out,
        &parts.held_out_tokens,
        &rewards,
    );
    println!("{}", report.table());
    let name = args.data.file_name().unwrap_or_default().to_string_lossy();
    report.write(&args.out, &format!("reward model on {name}"))?;
    println!(
        "wrote {} (model, metrics, report, curves.png)",
        args.out.display()
    );
    if args.profile {
        for (name, plan) in trainer.model().plans() {
            println!("\n{name}\n{}", plan.profile()?);
        }
        println!("\noptimiser\n{}", trainer.optimizer().plan().profile()?);
    }
    Ok(())
}

fn tokenizer(args: &Args) -> Result<LoadedTokenizer> {
    match (&args.tokenizer, &args.init) {
        (Some(path), _) => LoadedTokenizer::load(Some(path)),
        (None, Some(folder)) => LoadedTokenizer::of_model(folder),
        (None, None) => LoadedTokenizer::load(None),
    }
}

fn config(args: &Args, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    if let Some(folder) = &args.init {
        return config_of(folder, tokenizer);
    }
    if let Some(file) = &args.config {
        return new_config_of(file, tokenizer);
    }
    let shape = (args.layers, args.width, args.heads);
    new_gpt2(tokenizer, args.context, shape)
}

fn read(path: &Path, args: &Args, tokenizer: &LoadedTokenizer) -> Result<Vec<Record>> {
    let place = path.display().to_string();
    let options = ReadOptions {
        strict: args.strict,
        template: tokenizer.template(),
        ..ReadOptions::default()
    };
    let read = read_records(open_records(path)?, &place, options)?;
    println!(
        "data       {place}: {} records of {} lines",
        read.records.len(),
        read.lines
    );
    print_left_out(&read.skipped);
    Ok(read.records)
}

fn read_parts(args: &Args, tokenizer: &LoadedTokenizer, config: &ModelConfig) -> Result<Parts> {
    let all = read(&args.data, args, tokenizer)?;
    let (rest, held_out) = match &args.eval {
        Some(path) => (all, read(path, args, tokenizer)?),
        None => split(all, args.held_out, args.seed)?,
    };
    let (train, validation) = split(rest, args.held_out, args.seed.wrapping_add(1))?;
    let tokens = |records: &[Record]| tokens(args, &**tokenizer, config, records);
    let parts = Parts {
        train_tokens: tokens(&train)?,
        validation_tokens: tokens(&validation)?,
        held_out_tokens: tokens(&held_out)?,
        train,
        held_out,
    };
    let sizes = [
        ("training", &parts.train_tokens),
        ("early stopping", &parts.validation_tokens),
        ("held out", &parts.held_out_tokens),
    ];
    for (name, records) in sizes {
        if records.is_empty() {
            bail!("no record is left for {name}: give more data, or another --held-out");
        }
        println!("           {} for {name}", records.len());
    }
    Ok(parts)
}

/// Splits by prompt: no prompt stands on both sides.
fn split(records: Vec<Record>, share: f64, seed: u64) -> Result<(Vec<Record>, Vec<Record>)> {
    let (rest, held_out) = split_by_prompt(&records, share, seed)?;
    let pick = |indices: Vec<usize>| indices.iter().map(|&i| records[i].clone()).collect();
    Ok((pick(rest), pick(held_out)))
}

fn tokens(
    args: &Args,
    tokenizer: &dyn Tokenizer,
    config: &ModelConfig,
    records: &[Record],
) -> Result<Vec<TokenRecord>> {
    let options = TokeniseOptions {
        context: args.context.min(config.max_position_embeddings),
        vocab_size: config.vocab_size,
        for_scoring: false,
        boundary: Boundary::Longest,
    };
    let tokenised = tokenise(
        records,
        &args.data.display().to_string(),
        tokenizer,
        options,
    )?;
    if !tokenised.truncated.is_empty() {
        println!(
            "           {} prompts lost their beginning to fit {} tokens",
            tokenised.truncated.len(),
            options.context
        );
    }
    print_left_out(&tokenised.dropped);
    Ok(tokenised.records)
}

fn new_trainer(
    gpu: &Gpu,
    args: &Args,
    config: &ModelConfig,
    parts: &Parts,
) -> Result<RewardTrainer> {
    let (train, validation) = (parts.train_tokens.clone(), parts.validation_tokens.clone());
    let trainer = RewardTrainer::new(gpu, config, args.options(), train, validation)?;
    Ok(trainer)
}

fn trainer(gpu: &Gpu, args: &Args, config: &ModelConfig, parts: &Parts) -> Result<RewardTrainer> {
    if args.resume {
        let Some(newest) = checkpoint::newest(&args.out)? else {
            bail!("{} holds no checkpoint to resume from", args.out.display());
        };
        println!("resuming   {}", newest.display());
        let (train, validation) = (parts.train_tokens.clone(), parts.validation_tokens.clone());
        return Ok(RewardTrainer::resume(gpu, &newest, train, validation)?);
    }
    let trainer = new_trainer(gpu, args, config, parts)?;
    if let Some(folder) = &args.init {
        let has_head = load_weights(gpu, trainer.model().parameters(), folder)?;
        let head = if has_head { "with" } else { "without" };
        println!("weights    {} ({head} a reward head)", folder.display());
    }
    Ok(trainer)
}

fn save(args: &Args, tokenizer: &LoadedTokenizer, trainer: &RewardTrainer) -> Result<()> {
    let model = trainer.model();
    let weights = model
        .parameters()
        .read(model.gpu(), |chunk| &chunk.weights)?;
    save_reward_model(model.parameters(), &weights, model.config(), &args.out)?;
    tokenizer.copy_into(&args.out)
}

/// Lists the lines that cannot be used: the first few with their reason, the rest by number.
fn print_left_out(skipped: &[Skipped]) {
    const SHOWN: usize = 4;
    for skipped in skipped.iter().take(SHOWN) {
        println!(
            "           line {} left out: {}",
            skipped.line, skipped.reason
        );
    }
    if skipped.len() > SHOWN {
        let rest: Vec<String> = skipped[SHOWN..]
            .iter()
            .map(|s| s.line.to_string())
            .collect();
        println!(
            "           {} more left out: lines {}",
            rest.len(),
            rest.join(", ")
        );
    }
}
