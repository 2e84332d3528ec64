//! The three stages before the improvement: writing, comparing, rewarding.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use example_tools::files::{OutputFile, output_folder};
use example_tools::progress::{Progress, StepStatus};
use example_tools::statistics::{accuracy, spearman};
use example_tools::training::{Outcome, train};
use prefgrad::data::{Preference, Random, TokenRecord, Tokenizer};
use prefgrad::model::{
    Completion, Generator, GeneratorCapacity, Head, Policy, PolicyOptions, Purpose, RewardModel,
    save_language_model, save_reward_model,
};
use prefgrad::train::{
    RewardOptions, RewardTrainer, SftOptions, SftTrainer, TuningOptions, capacity_for,
    policy_capacity, score_records,
};
use serde_json::json;

use crate::Args;
use crate::setup::{ANSWER, Setup, write_tokenizer};
use crate::world::{demonstration, prefers_first};

/// Demonstrations.
const DEMONSTRATIONS: usize = 6000;
/// Answers drawn at one time.
const SEQUENCES: usize = 256;
/// Comparisons that no model learns from: to stop early by, and to judge by.
const VALIDATION: usize = 300;
const HELD_OUT: usize = 1000;

/// Streams of the run's random numbers.
const DEMONSTRATING: u64 = 1;
const COMPARING: u64 = 2;

/// Comparisons, and what the answers are truly worth.
pub struct Compared {
    /// To learn from.
    pub training: Vec<TokenRecord>,
    /// To stop early by.
    pub validation: Vec<TokenRecord>,
    /// To judge the reward model by.
    pub held_out: Vec<TokenRecord>,
    /// The true utilities of the held-out answers, chosen first.
    pub utilities: Vec<[f64; 2]>,
}

/// Stage 1: next-token prediction on demonstrations.
pub fn write(setup: &Setup, args: &Args, interrupted: &AtomicBool) -> Result<Policy> {
    let mut random = Random::new(args.seed, DEMONSTRATING);
    let prompts = setup.prompts(&setup.questions)?;
    let demonstrations = (0..DEMONSTRATIONS)
        .map(|index| {
            let mut answer = setup.tokenizer.encode(&demonstration(&mut random))?;
            answer.push(setup.eos);
            Ok(TokenRecord {
                line: index + 1,
                prompt: prompts[index % prompts.len()].clone(),
                answers: vec![answer],
                preferences: Vec::new(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let options = SftOptions {
        tuning: TuningOptions {
            seed: args.seed,
            steps: args.sft_steps,
            learning_rate: 3e-3,
            evaluate_every: 0,
            ..TuningOptions::default()
        },
        ..SftOptions::default()
    };
    let (gpu, config) = (&setup.gpu, &setup.config);
    let mut trainer = SftTrainer::new(gpu, config, options, &demonstrations, &[])?;
    trainer.policy().parameters().initialise(gpu, args.seed)?;
    let mut bar = Progress::new("writing", 0, args.sft_steps);
    while !trainer.is_over() {
        if let Some(reading) = trainer.step()?
            && let Some(last) = reading.steps.last()
        {
            bar.update(StepStatus {
                step: last.step,
                tokens: reading.steps.iter().map(|step| step.tokens as u64).sum(),
                loss: last.loss,
                accuracy: None,
            });
        }
        stop_if(interrupted)?;
    }
    bar.finish();
    let start = Policy::new(
        gpu,
        config,
        &[Head::Language],
        policy_capacity(2048),
        Purpose::Score,
        PolicyOptions::default(),
    )?;
    start
        .parameters()
        .copy_from(gpu, trainer.policy().parameters())?;
    save_policy(setup, start.parameters(), &args.out.join("start"))?;
    Ok(start)
}

/// Writes a writer as a model folder.
pub fn save_policy(
    setup: &Setup,
    parameters: &prefgrad::model::Parameters,
    folder: &Path,
) -> Result<()> {
    output_folder(folder)?;
    let weights = parameters.read(&setup.gpu, |chunk| &chunk.weights)?;
    save_language_model(parameters, &weights, &setup.config, folder)?;
    write_tokenizer(folder)
}

/// Stage 2: two answers to a question, and a person's choice.
pub fn compare(setup: &Setup, args: &Args, start: &Policy) -> Result<Compared> {
    let wanted = args.comparisons + VALIDATION + HELD_OUT;
    let prompts = setup.prompts(&setup.questions)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
    let capacity = GeneratorCapacity {
        prompt_tokens: prompts.len() * longest,
        prompts: prompts.len(),
        sequences: SEQUENCES,
        new_tokens: ANSWER,
    };
    let mut generator = Generator::new(&setup.gpu, &setup.config, start.parameters(), capacity)?;
    let mut random = Random::new(args.seed, COMPARING);
    let mut records = Vec::with_capacity(wanted);
    let mut utilities = Vec::with_capacity(wanted);
    let mut bar = Progress::new("comparing", 0, wanted as u64);
    let mut round = 0;
    while records.len() < wanted {
        round += 1;
        let options = setup.sampling(args.seed.wrapping_add(round << 32));
        let answers = generator.generate(&prompts, 8, &options)?;
        for pair in answers.chunks_exact(2) {
            if let Some((record, worth)) = choose(setup, &prompts, pair, &mut random)? {
                records.push(TokenRecord {
                    line: records.len() + 1,
                    ..record
                });
                utilities.push(worth);
            }
        }
        bar.update(StepStatus {
            step: records.len().min(wanted) as u64,
            tokens: answers
                .iter()
                .map(|answer| answer.tokens.len() as u64)
                .sum(),
            loss: 0.0,
            accuracy: None,
        });
    }
    bar.finish();
    records.truncate(wanted);
    write_comparisons(setup, &args.out.join("comparisons.jsonl"), &records)?;
    let held_out = records.split_off(wanted - HELD_OUT);
    let validation = records.split_off(wanted - HELD_OUT - VALIDATION);
    Ok(Compared {
        training: records,
        validation,
        utilities: utilities[wanted - HELD_OUT..wanted].to_vec(),
        held_out,
    })
}

/// A person's choice between two answers, with what the chosen and the other are truly worth;
/// `None` where they are worth the same.
pub fn choose(
    setup: &Setup,
    prompts: &[Vec<u32>],
    pair: &[Completion],
    random: &mut Random,
) -> Result<Option<(TokenRecord, [f64; 2])>> {
    let worth = [
        setup.gold(&pair[0].tokens, pair[0].finish)?,
        setup.gold(&pair[1].tokens, pair[1].finish)?,
    ];
    if worth[0] == worth[1] {
        return Ok(None);
    }
    let first = prefers_first(worth, random);
    let (chosen, rejected) = if first { (0, 1) } else { (1, 0) };
    let record = TokenRecord {
        line: 0,
        prompt: prompts[pair[0].prompt].clone(),
        answers: vec![pair[chosen].tokens.clone(), pair[rejected].tokens.clone()],
        preferences: vec![Preference {
            chosen: 0,
            rejected: 1,
            weight: 1.0,
            margin: 0.0,
        }],
    };
    Ok(Some((record, [worth[chosen], worth[rejected]])))
}

/// As a user's file would be.
fn write_comparisons(setup: &Setup, path: &Path, records: &[TokenRecord]) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    for record in records {
        let line = json!({
            "prompt": setup.tokenizer.decode(&record.prompt)? + "\n",
            "chosen": setup.text(&record.answers[0])?,
            "rejected": setup.text(&record.answers[1])?,
        });
        writeln!(file, "{line}")?;
    }
    Ok(file.commit()?)
}

/// Stage 3: reward models, which start as the writer.
pub fn reward(
    setup: &Setup,
    args: &Args,
    start: &Policy,
    compared: &Compared,
    interrupted: &AtomicBool,
) -> Result<Vec<RewardModel>> {
    let mut models = Vec::new();
    for member in 0..args.ensemble {
        let seed = args.seed.wrapping_add((member as u64) << 32);
        let folder = match member {
            0 => args.out.join("reward"),
            _ => args.out.join(format!("reward-{}", member + 1)),
        };
        output_folder(&folder)?;
        let options = RewardOptions {
            seed,
            steps: args.reward_steps,
            learning_rate: 2e-3,
            center_rewards_coefficient: 0.01,
            evaluate_every: 40,
            ..RewardOptions::default()
        };
        let (training, validation) = (compared.training.clone(), compared.validation.clone());
        let (gpu, config) = (&setup.gpu, &setup.config);
        let mut trainer = RewardTrainer::new(gpu, config, options, training, validation)?;
        let parameters = trainer.model().parameters();
        parameters.copy_common(gpu, start.parameters())?;
        if train(&mut trainer, &folder, 0, interrupted)? == Outcome::Interrupted {
            bail!("interrupted");
        }
        let trained = trainer.model().parameters();
        let weights = trained.read(gpu, |chunk| &chunk.weights)?;
        save_reward_model(trained, &weights, config, &folder)?;
        write_tokenizer(&folder)?;
        let model = RewardModel::to_score(gpu, config, capacity_for(2048, false))?;
        model.parameters().copy_from(gpu, trained)?;
        judge_reward(&model, compared)?;
        models.push(model);
    }
    Ok(models)
}

/// Compares rewards with people's choices, and with what the answers are truly worth.
fn judge_reward(model: &RewardModel, compared: &Compared) -> Result<()> {
    let rewards = score_records(model, &compared.held_out)?;
    let gaps: Vec<f64> = rewards
        .iter()
        .map(|pair| f64::from(pair[0]) - f64::from(pair[1]))
        .collect();
    let right = compared.utilities.iter().filter(|[a, b]| a > b).count();
    let rewards: Vec<f64> = rewards.concat().into_iter().map(f64::from).collect();
    println!("   held-out accuracy                  {}", accuracy(&gaps));
    println!(
        "   best reachable on these labels     {:.1} %",
        100.0 * right as f64 / compared.utilities.len() as f64
    );
    if let Some(rank) = spearman(&rewards, &compared.utilities.concat()) {
        println!("   rank correlation with true worth   {rank:.3}");
    }
    Ok(())
}

/// Ends the program where Ctrl-C asked for it.
pub fn stop_if(interrupted: &AtomicBool) -> Result<()> {
    match interrupted.load(Ordering::Relaxed) {
        true => bail!("interrupted"),
        false => Ok(()),
    }
}
