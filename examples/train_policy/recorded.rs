//! Supervised fine-tuning and DPO: the policy learns from what is in the file.

use anyhow::{Result, bail};
use example_tools::model_folder::{load_policy, save_policy};
use example_tools::policy::Ended;
use example_tools::policy_report::{Change, ending, table, tuning_curves, write_report};
use example_tools::record_file::open_records;
use example_tools::samples::mean_reward;
use example_tools::tuning::{Tuner, tune};
use prefgrad::data::{
    Boundary, ReadOptions, Record, TokenRecord, TokeniseOptions, read_records, split_by_prompt,
    tokenise,
};
use prefgrad::kernels::policy::dpo_loss::DpoLoss;
use prefgrad::train::{AdamW, DpoOptions, DpoTrainer, SftOptions, SftTrainer, TuningOptions};
use serde_json::{Value, json};

use super::args::{Algorithm, Args};
use super::{Session, draw, print_left_out};

/// The records to learn from and those held out.
struct Parts {
    train: Vec<TokenRecord>,
    held_out: Vec<TokenRecord>,
}

/// Trains, saves and reports.
pub fn run(session: &Session) -> Result<()> {
    let args = &session.args;
    let longest = session.longest_prompt()?;
    let parts = read_parts(session)?;
    let mut trainer = trainer(session, &parts)?;
    session.print_model(trainer.policy());
    let mut judge = session.judge()?;
    let prompts = parts.held_out.iter().map(|record| &record.prompt);
    let prompts: Vec<Vec<u32>> = prompts
        .filter(|prompt| !prompt.is_empty())
        .map(|prompt| {
            let mut prompt = prompt.clone();
            session.tokenizer.shorten(&mut prompt, longest);
            prompt
        })
        .collect();
    let mut sampler = session.sampler(trainer.policy(), &prompts)?;
    // What random weights write is not worth a look.
    let before = match args.policy {
        Some(_) => draw(&mut sampler, &mut judge)?,
        None => Vec::new(),
    };
    let evaluates = evaluates(args) && !parts.held_out.is_empty();
    let start = match evaluates {
        true => trainer.evaluate()?,
        false => Vec::new(),
    };
    let limits = session.limits();
    let place = (args.out.as_path(), args.algorithm.name());
    let ended = tune(trainer.as_mut(), place, limits, evaluates)?;
    save_policy(trainer.policy(), &session.tokenizer, &args.out)?;
    println!("training   {}", ending(ended, trainer.updates()));
    if let Some(best) = trainer.best() {
        println!(
            "           kept the weights of step {}, of the lowest held-out loss",
            best.step
        );
    }
    let end = match evaluates {
        true => trainer.evaluate()?,
        false => Vec::new(),
    };
    let after = draw(&mut sampler, &mut judge)?;
    if let Some(sampler) = &sampler {
        let mut columns = vec![("after", &after[..])];
        if !before.is_empty() {
            columns.insert(0, ("before", &before[..]));
        }
        session.show(sampler.prompts(), &columns)?;
    }
    let mut changes: Vec<Change> = start
        .iter()
        .zip(&end)
        .map(|((name, start), (_, end))| {
            // Before training no pair is told apart: all are ties.
            let start = match *name {
                "validation/accuracy" => f64::NAN,
                _ => *start,
            };
            let name = name.replace("validation/", "held-out ");
            Change::new(&name, start, *end, 4)
        })
        .collect();
    if let Some(end) = mean_reward(&after) {
        let name = format!("reward on {} held-out prompts", after.len());
        let start = mean_reward(&before).unwrap_or(f64::NAN);
        changes.push(Change::new(&name, start, end, 3));
    }
    if !changes.is_empty() {
        println!("{}", table(&changes));
    }
    report(session, trainer.as_ref(), ended, &changes)
}

fn report(session: &Session, trainer: &dyn Tuner, ended: Ended, changes: &[Change]) -> Result<()> {
    let args = &session.args;
    let more: [(&str, Value); 4] = [
        ("algorithm", json!(args.algorithm.name())),
        ("steps", json!(trainer.updates())),
        ("best_step", json!(trainer.best().map(|best| best.step))),
        ("ended", json!(ending(ended, trainer.updates()))),
    ];
    write_report(&args.out, changes, more)?;
    let data = args.data.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{} on {data}", args.algorithm.name());
    tuning_curves(&args.out, &title, args.algorithm == Algorithm::Dpo)?;
    println!(
        "wrote {} (model, metrics, samples, report, curves.png)",
        args.out.display()
    );
    Ok(())
}

fn evaluates(args: &Args) -> bool {
    args.evaluate_every != Some(0)
}

fn trainer(session: &Session, parts: &Parts) -> Result<Box<dyn Tuner>> {
    let (args, gpu, config) = (&session.args, &session.gpu, &session.config);
    let (train, held_out) = (&parts.train, &parts.held_out);
    if args.algorithm == Algorithm::Dpo {
        let mut trainer = DpoTrainer::new(gpu, config, dpo(args)?, train, held_out)?;
        if let Some(folder) = &args.policy {
            load_policy(trainer.policy(), folder)?;
        }
        trainer.prepare()?;
        return Ok(Box::new(trainer));
    }
    let default = SftOptions::default();
    let rate = if args.policy.is_some() { 3e-4 } else { 1e-3 };
    let options = SftOptions {
        tuning: tuning(args, &default.tuning, rate),
        ..default
    };
    let trainer = SftTrainer::new(gpu, config, options, train, held_out)?;
    if let Some(folder) = &args.policy {
        load_policy(trainer.policy(), folder)?;
    }
    Ok(Box::new(trainer))
}

fn tuning(args: &Args, default: &TuningOptions, rate: f64) -> TuningOptions {
    TuningOptions {
        seed: args.seed,
        batch_tokens: args.batch_tokens,
        accumulation: args.accumulation.unwrap_or(default.accumulation),
        steps: args.steps.unwrap_or(300),
        learning_rate: args.learning_rate.unwrap_or(rate),
        optimizer: AdamW {
            weight_decay: args.weight_decay,
            ..default.optimizer
        },
        evaluate_every: args.evaluate_every.unwrap_or(25),
        patience: args.patience.unwrap_or(6),
        ..default.clone()
    }
}

fn dpo(args: &Args) -> Result<DpoOptions> {
    let default = DpoOptions::default();
    let loss = match args.loss.as_deref() {
        None | Some("sigmoid") => DpoLoss::Sigmoid,
        Some("sigmoid-norm" | "sigmoid_norm") => DpoLoss::SigmoidNorm,
        Some("ipo") => DpoLoss::Ipo { per_token: true },
        Some("ipo-sum") => DpoLoss::Ipo { per_token: false },
        Some("hinge") => DpoLoss::Hinge,
        Some("robust") => DpoLoss::Robust,
        Some(other) => bail!(
            "--loss {other} is none of dpo's: sigmoid, sigmoid-norm, ipo, ipo-sum, hinge, robust"
        ),
    };
    Ok(DpoOptions {
        tuning: tuning(args, &default.tuning, default.tuning.learning_rate),
        loss,
        beta: args.beta.unwrap_or(default.beta),
        label_smoothing: args.label_smoothing.unwrap_or(default.label_smoothing),
    })
}

fn read_parts(session: &Session) -> Result<Parts> {
    let args = &session.args;
    let place = args.data.display().to_string();
    let options = ReadOptions {
        // An answer to learn from needs no other one to be preferred to.
        for_scoring: args.algorithm == Algorithm::Sft,
        template: session.tokenizer.template(),
        ..ReadOptions::default()
    };
    let read = read_records(open_records(&args.data)?, &place, options)?;
    println!(
        "data       {place}: {} records of {} lines",
        read.records.len(),
        read.lines
    );
    print_left_out(&read.skipped);
    let (train, held_out) = split_by_prompt(&read.records, args.held_out, args.seed)?;
    let pick = |indices: Vec<usize>| -> Vec<Record> {
        indices.iter().map(|&i| read.records[i].clone()).collect()
    };
    let parts = Parts {
        train: tokens(session, &place, &pick(train))?,
        held_out: tokens(session, &place, &pick(held_out))?,
    };
    if parts.train.is_empty() {
        bail!("no record is left to learn from: give more data, or a smaller --held-out");
    }
    println!(
        "           {} to learn from, {} held out",
        parts.train.len(),
        parts.held_out.len()
    );
    Ok(parts)
}

fn tokens(session: &Session, place: &str, records: &[Record]) -> Result<Vec<TokenRecord>> {
    let options = TokeniseOptions {
        context: session.context,
        vocab_size: session.config.vocab_size,
        for_scoring: session.args.algorithm == Algorithm::Sft,
        boundary: Boundary::Prompt,
    };
    let tokenised = tokenise(records, place, &*session.tokenizer, options)?;
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
