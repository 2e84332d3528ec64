//! Learns a hidden preference from noisy comparisons, in under two minutes on two CPU cores.

mod world;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use example_tools::files::{OutputFile, open_text, output_folder};
use example_tools::hf_tokenizer::HfTokenizer;
use example_tools::report::Report;
use example_tools::statistics::{accuracy, spearman};
use example_tools::training::{Outcome, interrupt_flag, train};
use prefgrad::Gpu;
use prefgrad::data::{
    Boundary, ReadOptions, Record, TokenRecord, TokeniseOptions, Tokenizer, read_records, tokenise,
};
use prefgrad::model::{Gpt2Config, save_reward_model};
use prefgrad::train::{RewardOptions, RewardTrainer, score_records};
use serde_json::json;

use world::{Comparison, EOS, ERROR_RATE, PAD, comparisons, tokenizer_json};

/// The longest question and answer together, in words and punctuation.
const CONTEXT: usize = 64;

/// Makes comparisons by people with a hidden preference, trains a reward model on them, and shows
/// how well it found that preference.
///
/// Needs no files. Leaves the comparisons, the model, its metrics and pictures in --out; try
/// `train_reward --data` and `score --model` on them next.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where everything goes.
    #[arg(long, default_value = "runs/quickstart", value_name = "DIR")]
    out: PathBuf,
    /// Seeds the world and the model.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Comparisons to learn from.
    #[arg(long, default_value_t = 6000)]
    comparisons: usize,
    /// Updates.
    #[arg(long, default_value_t = 240)]
    steps: u64,
}

/// Comparisons, and the same as the crate reads them.
struct Part {
    world: Vec<Comparison>,
    texts: Vec<Record>,
    tokens: Vec<TokenRecord>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    output_folder(&args.out)?;
    let gpu = Gpu::new()?;
    println!(
        "device     {} ({})",
        gpu.info().name,
        gpu.info().driver_info
    );
    let tokenizer = tokenizer(&args.out)?;
    let config = Gpt2Config {
        vocab_size: tokenizer.vocab_size(),
        n_positions: CONTEXT,
        n_embd: 64,
        n_layer: 2,
        n_head: 4,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: tokenizer.eos_token_id(),
        pad_token_id: tokenizer.pad_token_id(),
        tie_word_embeddings: true,
    };
    let part = |name: &str, count: usize, seed: u64| part(&args.out, name, count, seed, &tokenizer);
    let training = part("comparisons", args.comparisons, 3 * args.seed)?;
    let validation = part("validation", 300, 3 * args.seed + 1)?;
    let held_out = part("held_out", 1000, 3 * args.seed + 2)?;
    show_the_task(&training);

    let options = RewardOptions {
        seed: args.seed,
        steps: args.steps,
        batch_tokens: 2048,
        learning_rate: 2e-3,
        center_rewards_coefficient: 0.01,
        evaluate_every: 40,
        read_every: 5,
        ..RewardOptions::default()
    };
    let mut trainer = RewardTrainer::new(
        &gpu,
        &config,
        options,
        training.tokens.clone(),
        validation.tokens.clone(),
    )?;
    let interrupted = interrupt_flag()?;
    if train(&mut trainer, &args.out, 0, &interrupted)? == Outcome::Interrupted {
        println!("stopped after update {}", trainer.updates());
        return Ok(());
    }
    let model = trainer.model();
    let weights = model.parameters().read(&gpu, |chunk| &chunk.weights)?;
    save_reward_model(model.parameters(), &weights, &config, &args.out)?;

    let rewards = score_records(model, &held_out.tokens)?;
    let training_texts: Vec<&Record> = training.texts.iter().collect();
    let report = Report::new(&training_texts, &held_out.texts, &held_out.tokens, &rewards);
    report.write(&args.out, "quickstart: a hidden preference")?;
    println!("{}", report.table());
    show_what_was_found(&held_out, &rewards);
    println!(
        "{:.0} s; wrote {} (model, comparisons.jsonl, metrics.jsonl, report.json, curves.png, calibration.png)",
        started.elapsed().as_secs_f64(),
        args.out.display()
    );
    Ok(())
}

/// Writes this world's tokenizer where the model's goes, and loads it from there.
fn tokenizer(out: &Path) -> Result<HfTokenizer> {
    let path = out.join("tokenizer.json");
    let mut file = OutputFile::create(&path)?;
    write!(file, "{:#}", tokenizer_json())?;
    file.commit()?;
    let path = out.join("tokenizer_config.json");
    let mut file = OutputFile::create(&path)?;
    write!(file, "{:#}", json!({"eos_token": EOS, "pad_token": PAD}))?;
    file.commit()?;
    Ok(HfTokenizer::load(out)?)
}

/// Makes comparisons, writes them as a user's file would be, and reads that file.
fn part(out: &Path, name: &str, count: usize, seed: u64, tokenizer: &HfTokenizer) -> Result<Part> {
    let world = comparisons(count, seed);
    let path = out.join(format!("{name}.jsonl"));
    let mut file = OutputFile::create(&path)?;
    for comparison in &world {
        let [chosen, rejected] = &comparison.answers;
        let line = json!({
            "prompt": comparison.prompt,
            "chosen": chosen.text,
            "rejected": rejected.text,
        });
        writeln!(file, "{line}")?;
    }
    file.commit()?;
    let place = path.display().to_string();
    let texts = read_records(open_text(&path)?, &place, ReadOptions::default())?.records;
    let options = TokeniseOptions {
        context: CONTEXT,
        vocab_size: tokenizer.vocab_size(),
        for_scoring: false,
        boundary: Boundary::Longest,
    };
    let tokens = tokenise(&texts, &place, tokenizer, options)?.records;
    Ok(Part {
        world,
        texts,
        tokens,
    })
}

fn show_the_task(training: &Part) {
    let wrong = training.world.iter().filter(|c| !c.is_right()).count();
    println!(
        "task       {} comparisons by people who err in {:.0} % ({wrong} do). The first:",
        training.world.len(),
        100.0 * ERROR_RATE
    );
    if let Some(first) = training.world.first() {
        println!("           asked    {}", first.prompt.trim_end());
        println!("           chosen   {}", first.answers[0].text);
        println!("           rejected {}", first.answers[1].text);
    }
    println!();
}

/// Compares rewards with the utility that only the world knows.
fn show_what_was_found(held_out: &Part, rewards: &[Vec<f32>]) {
    let by_line: HashMap<usize, &Comparison> = held_out
        .texts
        .iter()
        .map(|r| r.line)
        .zip(&held_out.world)
        .collect();
    let mut gaps = Vec::new();
    let mut answers: Vec<(f64, f64, &str, &str)> = Vec::new();
    for (record, rewards) in held_out.tokens.iter().zip(rewards) {
        let Some(comparison) = by_line.get(&record.line) else {
            continue;
        };
        let [a, b] = [f64::from(rewards[0]), f64::from(rewards[1])];
        gaps.push(if comparison.is_right() { a - b } else { b - a });
        for (answer, reward) in comparison.answers.iter().zip([a, b]) {
            answers.push((
                reward,
                answer.utility,
                comparison.prompt.trim_end(),
                &answer.text,
            ));
        }
    }
    let right = held_out.world.iter().filter(|c| c.is_right()).count();
    let column =
        |pick: fn(&(f64, f64, &str, &str)) -> f64| answers.iter().map(pick).collect::<Vec<_>>();
    println!("the hidden preference, which the model never saw:");
    println!(
        "  best reachable on these labels     {:.1} %",
        100.0 * right as f64 / held_out.world.len() as f64
    );
    println!("  agreement with the preference      {}", accuracy(&gaps));
    if let Some(rank) = spearman(&column(|a| a.0), &column(|a| a.1)) {
        println!("  rank correlation with its utility  {rank:.3}");
    }
    answers.sort_by(|a, b| b.0.total_cmp(&a.0));
    let line = |(reward, utility, prompt, text): &(f64, f64, &str, &str)| {
        println!("  {reward:>6.2} {utility:>8.1}   {prompt:<29} {text}");
    };
    println!("\n  reward  utility   most preferred");
    answers.iter().take(4).for_each(line);
    println!("  reward  utility   least preferred");
    answers.iter().rev().take(4).for_each(line);
    println!();
}
