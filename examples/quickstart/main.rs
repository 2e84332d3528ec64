//! The whole of learning from human feedback in a few minutes on two CPU cores: a model learns to
//! write, people compare what it writes, a reward model learns what they like, and the model is
//! improved against it.

mod improve;
mod judge;
mod report;
mod setup;
mod stages;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use example_tools::files::output_folder;
use example_tools::training::interrupt_flag;
use prefgrad::train::RewardEnsemble;

use improve::Improvement;
use judge::Judge;
use report::Outcome;
use setup::Setup;

/// How the model is improved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    /// Proximal policy optimisation, against the reward model.
    Ppo,
    /// Answers compared within groups, against the reward model.
    Grpo,
    /// The same with a leave-one-out baseline.
    Rloo,
    /// Straight from people's comparisons, without a reward model: half of them as for the others,
    /// half of newer answers.
    Dpo,
}

impl Algorithm {
    /// As papers write it.
    fn name(self) -> String {
        format!("{self:?}").to_uppercase()
    }
}

/// Teaches a small model to write, has made-up people compare its answers, trains a reward model
/// on their choices, improves the writer against it, and shows what that did to the preference
/// that only this program knows.
///
/// Needs no files. Leaves the comparisons, three models (start, reward, policy), metrics and
/// pictures in --out; try `generate --model`, `score --model` and `train_policy` on them next.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Where everything goes.
    #[arg(long, default_value = "runs/quickstart", value_name = "DIR")]
    out: PathBuf,
    /// Seeds the world, the models and the sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the writer is improved; several, as in `--algorithm ppo,grpo,dpo`, each improve the
    /// same start.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "ppo")]
    algorithm: Vec<Algorithm>,
    /// Updates on demonstrations.
    #[arg(long, default_value_t = 300)]
    sft_steps: u64,
    /// Comparisons that people make.
    #[arg(long, default_value_t = 16_000)]
    comparisons: usize,
    /// Updates on comparisons.
    #[arg(long, default_value_t = 800)]
    reward_steps: u64,
    /// Reward models: with several, the reward is their mean less --pessimism standard
    /// deviations.
    #[arg(long, default_value_t = 1)]
    ensemble: usize,
    /// How much the disagreement of the reward models counts against an answer.
    #[arg(long, default_value_t = 1.0)]
    pessimism: f32,
    /// Tokens to improve with: those that are sampled and those that go through an update.
    #[arg(long, default_value_t = 600_000)]
    budget: usize,
    /// How strongly PPO (0.08), GRPO and RLOO (0.25) hold the writer to its start.
    #[arg(long)]
    kl_coef: Option<f64>,
    /// How strongly DPO holds the writer to its reference.
    #[arg(long, default_value_t = 0.35)]
    beta: f32,
    /// Stop once an answer is this many nats from the start.
    #[arg(long, default_value_t = 10.0)]
    kl_limit: f64,
    /// The highest learning rate of PPO, GRPO and RLOO.
    #[arg(long, default_value_t = 5e-4)]
    learning_rate: f64,
    /// The highest learning rate of DPO.
    #[arg(long, default_value_t = 4e-4)]
    dpo_learning_rate: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    output_folder(&args.out)?;
    let interrupted = interrupt_flag()?;
    let setup = Setup::new(&args.out, args.seed)?;

    println!("\n1. A writer learns to write from demonstrations, good and bad.");
    let start = stages::write(&setup, &args, &interrupted)?;
    println!(
        "\n2. People compare its answers two by two; the closer two are, the more often they err."
    );
    let compared = stages::compare(&setup, &args, &start)?;
    println!("\n3. A reward model learns what they like.");
    let models = stages::reward(&setup, &args, &start, &compared, &interrupted)?;
    let mut reward = RewardEnsemble::new(models, args.pessimism)?;

    println!("\n4. The writer is improved.");
    let mut judge = Judge::new(&setup, &start)?;
    let before = judge.measure(&setup, &start, start.parameters(), &mut reward)?;
    let mut outcomes = Vec::new();
    for &algorithm in &args.algorithm {
        println!("\n   {}", algorithm.name());
        let mut run = Improvement {
            setup: &setup,
            args: &args,
            algorithm,
            start: &start,
            reward: &mut reward,
            judge: &mut judge,
            points: vec![before.clone()],
            tokens: 0,
        };
        let improved = run.run(&compared.training, &interrupted)?;
        let (points, tokens) = (run.points, run.tokens);
        let after = judge.measure(&setup, &start, &improved, &mut reward)?;
        report::save(&setup, &args, algorithm, &improved)?;
        outcomes.push(Outcome {
            algorithm,
            after,
            points,
            tokens,
        });
    }
    report::show(&args, &before, &outcomes)?;
    println!(
        "{:.0} s; wrote {}",
        started.elapsed().as_secs_f64(),
        args.out.display()
    );
    Ok(())
}
