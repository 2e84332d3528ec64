//! PPO, GRPO and RLOO: the policy learns from its own answers.

use anyhow::{Context, Result, bail};
use example_tools::model_folder::{load_policy, save_policy};
use example_tools::policy::{Ended, PolicyOptions, PolicyTrainer, Rollout, improve};
use example_tools::policy_report::{Change, changes, ending, policy_curves, table, write_report};
use example_tools::prompts::{PromptFile, Prompts};
use example_tools::rewards::RewardJudge;
use example_tools::samples::{Judged, mean_reward};
use prefgrad::Gpu;
use prefgrad::data::{Record, split_by_prompt};
use prefgrad::kernels::policy::grpo_loss::GrpoLossType;
use prefgrad::model::Critic;
use prefgrad::train::{
    AdamW, GrpoOptions, KlOptions, KlPenalty, PpoOptions, RolloutOptions, ValueModel,
};
use serde_json::{Value, json};

use super::args::{Algorithm, Args, KlPenaltyName, ValueModelName};
use super::{Session, draw, print_left_out};

/// Trains, saves and reports.
pub fn run(session: &Session) -> Result<()> {
    let args = &session.args;
    let options = options(session)?;
    let (prompts, held_out) = read_prompts(session)?;
    let (gpu, config) = (&session.gpu, &session.config);
    let mut trainer = PolicyTrainer::new(gpu, config, options, prompts.tokens)?;
    let folder = args.policy.as_ref().context("no --policy")?;
    load_policy(trainer.policy(), folder)?;
    session.print_model(trainer.policy());
    let mut judge = session.judge()?;
    start_values(gpu, &trainer, judge.as_ref())?;
    trainer.start()?;

    let mut sampler = session.sampler(trainer.policy(), &held_out.tokens)?;
    let before = draw(&mut sampler, &mut judge)?;
    let mut rollouts = Vec::new();
    let ended = {
        let reward = judge.as_mut().context("no --reward")?;
        let place = (args.out.as_path(), args.algorithm.name());
        improve(&mut trainer, reward, place, session.limits(), &mut rollouts)
    };
    if ended.is_ok() || !rollouts.is_empty() {
        save_policy(trainer.policy(), &session.tokenizer, &args.out)?;
    }
    let ended = ended.with_context(|| match rollouts.len() {
        0 => "nothing was learnt".to_owned(),
        count => format!(
            "stopped after {count} rollouts; {} has the policy up to there",
            args.out.display()
        ),
    })?;
    let after = draw(&mut sampler, &mut judge)?;
    println!("training   {}", ending(ended, trainer.rollouts()));
    if let Some(sampler) = &sampler {
        let columns = [("before", &before[..]), ("after", &after[..])];
        session.show(sampler.prompts(), &columns)?;
    }
    report(session, &rollouts, ended, (&before, &after))?;
    println!(
        "wrote {} (model, metrics, samples, report, curves.png)",
        args.out.display()
    );
    Ok(())
}

fn report(
    session: &Session,
    rollouts: &[Rollout],
    ended: Ended,
    (before, after): (&[Judged], &[Judged]),
) -> Result<()> {
    let args = &session.args;
    let mut changes = changes(rollouts);
    if let (Some(start), Some(end)) = (mean_reward(before), mean_reward(after)) {
        let name = format!("reward on {} held-out prompts", before.len());
        changes.push(Change::new(&name, start, end, 3));
    }
    println!("{}", table(&changes));
    let seconds: f64 = rollouts.iter().map(|rollout| rollout.seconds).sum();
    let sum = |tokens: fn(&Rollout) -> usize| rollouts.iter().map(tokens).sum::<usize>();
    let generated = sum(|rollout| rollout.step.generated_tokens);
    let trained = sum(|rollout| rollout.step.trained_tokens);
    println!(
        "{} rollouts in {seconds:.0} s: {generated} tokens generated, {trained} learnt from",
        rollouts.len()
    );
    let more: [(&str, Value); 7] = [
        ("algorithm", json!(args.algorithm.name())),
        ("rollouts", json!(rollouts.len())),
        ("ended", json!(ending(ended, rollouts.len() as u64))),
        ("seconds", json!(seconds)),
        ("generated_tokens", json!(generated)),
        ("trained_tokens", json!(trained)),
        ("held_out_prompts", json!(before.len())),
    ];
    write_report(&args.out, &changes, more)?;
    let data = args.data.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{} on {data}", args.algorithm.name());
    policy_curves(&args.out, &title, rollouts, args.kl_limit)
}

/// The prompts to learn from and those held out.
fn read_prompts(session: &Session) -> Result<(Prompts, Prompts)> {
    let args = &session.args;
    let file = PromptFile::read(&args.data, session.tokenizer.template())?;
    println!(
        "data       {}: {} records of {} lines",
        args.data.display(),
        file.records.len(),
        file.lines
    );
    print_left_out(&file.skipped);
    let (train, held_out) = split_by_prompt(&file.records, args.held_out, args.seed)?;
    let sizes = (session.config.vocab_size, session.longest_prompt()?);
    let prompts = |indices: Vec<usize>| -> Result<Prompts> {
        let records: Vec<Record> = indices.iter().map(|&i| file.records[i].clone()).collect();
        file.prompts(&records, &*session.tokenizer, sizes)
    };
    let (train, held_out) = (prompts(train)?, prompts(held_out)?);
    if train.tokens.is_empty() {
        bail!("no prompt is left to learn from: give more data, or a smaller --held-out");
    }
    println!(
        "           {} prompts to learn from, {} held out",
        train.tokens.len(),
        held_out.tokens.len()
    );
    let shortened = train.shortened + held_out.shortened;
    if shortened > 0 {
        println!(
            "           {shortened} prompts lost their beginning: {} tokens are left by an answer \
             of {} in a context of {}",
            sizes.1, args.max_new_tokens, session.context
        );
    }
    let without = train.without.len() + held_out.without.len();
    if without > 0 {
        println!("           {without} records have no prompt and are left out");
    }
    Ok((train, held_out))
}

/// A value network of its own starts from the reward model, where that is of the same sizes and
/// reads the same tokens, and otherwise from the policy, with values of 0.
fn start_values(gpu: &Gpu, trainer: &PolicyTrainer, judge: Option<&RewardJudge>) -> Result<()> {
    let Some(values) = trainer.critic().and_then(Critic::parameters) else {
        return Ok(());
    };
    let rewards = judge
        .filter(|judge| !judge.retokenises())
        .and_then(|judge| judge.models().first());
    if let Some(model) = rewards
        && values.copy_from(gpu, model.parameters()).is_ok()
    {
        println!("values     start from the reward model");
        return Ok(());
    }
    for (spec, weights) in trainer.policy().parameters().read_weights(gpu)? {
        if values.windows(&spec.name).is_ok() {
            values.write(gpu, &spec.name, &weights)?;
        }
    }
    println!("values     start from the policy's weights");
    Ok(())
}

fn options(session: &Session) -> Result<PolicyOptions> {
    let args = &session.args;
    Ok(match args.algorithm {
        Algorithm::Ppo => PolicyOptions::Ppo(ppo(session)),
        Algorithm::Rloo => PolicyOptions::Grpo(GrpoOptions {
            rollout: rollout(session, &GrpoOptions::rloo().rollout, 8),
            ..with_clip(args, GrpoOptions::rloo())
        }),
        _ => PolicyOptions::Grpo(GrpoOptions {
            rollout: rollout(session, &GrpoOptions::default().rollout, 8),
            loss_type: loss_type(args)?,
            ..with_clip(args, GrpoOptions::default())
        }),
    })
}

fn with_clip(args: &Args, options: GrpoOptions) -> GrpoOptions {
    GrpoOptions {
        clip_low: args.clip_range.unwrap_or(options.clip_low),
        clip_high: args.clip_range.unwrap_or(options.clip_high),
        ..options
    }
}

fn loss_type(args: &Args) -> Result<GrpoLossType> {
    Ok(match args.loss.as_deref() {
        None | Some("dapo") => GrpoLossType::Dapo,
        Some("grpo") => GrpoLossType::Grpo,
        Some("bnpo") => GrpoLossType::Bnpo,
        Some("dr-grpo" | "dr_grpo") => GrpoLossType::DrGrpo,
        Some(other) => bail!("--loss {other} is none of grpo's: grpo, bnpo, dr-grpo, dapo"),
    })
}

fn ppo(session: &Session) -> PpoOptions {
    let (args, default) = (&session.args, PpoOptions::default());
    PpoOptions {
        rollout: rollout(session, &default.rollout, 32),
        value: match args.value_model {
            Some(ValueModelName::Network) => ValueModel::Network,
            Some(ValueModelName::Head) | None => ValueModel::Head,
        },
        clip_range: args.clip_range.unwrap_or(default.clip_range),
        entropy_coef: args.entropy_coef.unwrap_or(default.entropy_coef),
        kl_penalty: match args.kl_penalty {
            Some(KlPenaltyName::RewardK1) | None => KlPenalty::RewardK1,
            Some(KlPenaltyName::RewardK3) => KlPenalty::RewardK3,
            Some(KlPenaltyName::LossK2) => KlPenalty::LossK2,
            Some(KlPenaltyName::LossK3) => KlPenalty::LossK3,
        },
        ..default
    }
}

fn rollout(session: &Session, default: &RolloutOptions, prompts: usize) -> RolloutOptions {
    let args = &session.args;
    // A group of four: eight answers to a prompt, as TRL has it, are slow without a large device.
    let samples = default.samples.min(4);
    RolloutOptions {
        seed: args.seed,
        rollouts: args.rollouts.unwrap_or(default.rollouts),
        prompts: args.prompts.unwrap_or(prompts),
        samples: args.samples.unwrap_or(samples),
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        stop_tokens: session.stop_tokens.clone(),
        missing_eos_penalty: args.missing_eos_penalty.unwrap_or(0.0),
        epochs: args.epochs.unwrap_or(default.epochs),
        minibatches: args.minibatches.unwrap_or(default.minibatches),
        learning_rate: args.learning_rate.unwrap_or(default.learning_rate),
        optimizer: AdamW {
            weight_decay: args.weight_decay,
            ..default.optimizer
        },
        kl: KlOptions {
            coef: args.kl_coef.unwrap_or(default.kl.coef),
            target: args.kl_target,
            limit: args.kl_limit,
            ..default.kl
        },
        batch_tokens: args.batch_tokens,
        ..default.clone()
    }
}
