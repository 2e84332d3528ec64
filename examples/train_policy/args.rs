//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

/// Trains a language model on people's preferences, on any GPU.
///
/// ppo, grpo and rloo sample answers to the prompts of --data, have reward models judge them and
/// improve the policy; dpo learns from the comparisons in --data; sft learns to write the chosen
/// answers, from --policy or from scratch. Data is as train_reward takes it, or {"prompt"} alone for
/// the first three. Leaves in --out a model that `transformers` loads, its
/// tokenizer, metrics.jsonl, TensorBoard events, curves.png, samples.jsonl and report.json. Ctrl-C
/// stops after the current step and saves.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// How the policy learns.
    #[arg(long, value_enum)]
    pub algorithm: Algorithm,
    /// The language model to start from, a Hugging Face folder; sft without it starts from scratch.
    #[arg(long, value_name = "DIR")]
    pub policy: Option<PathBuf>,
    /// A reward model's folder; several make an ensemble. dpo and sft only show what it says.
    #[arg(long, value_name = "DIR")]
    pub reward: Vec<PathBuf>,
    /// Of an ensemble, the mean less this many standard deviations is the reward.
    #[arg(long, default_value_t = 0.0, value_name = "K")]
    pub pessimism: f32,
    /// Prompts, comparisons or answers.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Where the policy goes.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The share of prompts held out: for samples, and for early stopping of dpo and sft.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    pub held_out: f64,
    /// Held-out prompts that are answered before and after training.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub judged: usize,
    /// How many of those are shown.
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub shown: usize,
    /// Seeds weights, data order, splits and sampling.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Stop and save after this many minutes.
    #[arg(long, value_name = "M")]
    pub minutes: Option<f64>,

    /// Longest prompt and answer together, in tokens; longer prompts lose their beginning
    /// [default: the model's, from scratch 256].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub context: Option<usize>,
    /// A tokenizer.json, or a folder with one [default: the one in --policy, else bytes].
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub tokenizer: Option<PathBuf>,
    /// From scratch: model width [default: 128].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub width: Option<usize>,
    /// From scratch: transformer blocks [default: 2].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub layers: Option<usize>,
    /// From scratch: attention heads [default: 4].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub heads: Option<usize>,

    /// Updates of dpo and sft [default: 300].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub steps: Option<u64>,
    /// Highest learning rate [default: dpo, ppo, grpo, rloo 3e-5; sft 3e-4, from scratch 1e-3].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub learning_rate: Option<f64>,
    /// Packed tokens of a micro-batch.
    #[arg(
        long,
        default_value_t = 2048,
        value_name = "N",
        help_heading = "Training"
    )]
    pub batch_tokens: usize,
    /// Micro-batches of an update of dpo and sft [default: 1].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub accumulation: Option<usize>,
    /// Decay of matrices and tables.
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "F",
        help_heading = "Training"
    )]
    pub weight_decay: f64,
    /// Updates of dpo and sft between evaluations; 0: never [default: 25].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub evaluate_every: Option<u64>,
    /// Evaluations without gain before dpo and sft stop; 0: never [default: 6].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub patience: Option<u64>,

    /// Rollouts [default: 100].
    #[arg(long, value_name = "N", help_heading = "Sampling (ppo, grpo, rloo)")]
    pub rollouts: Option<u64>,
    /// Prompts of a rollout [default: ppo 32, grpo and rloo 8].
    #[arg(long, value_name = "N", help_heading = "Sampling (ppo, grpo, rloo)")]
    pub prompts: Option<usize>,
    /// Answers to each prompt [default: ppo 1, grpo and rloo 4].
    #[arg(long, value_name = "N", help_heading = "Sampling (ppo, grpo, rloo)")]
    pub samples: Option<usize>,
    /// Tokens of an answer at most.
    #[arg(
        long,
        default_value_t = 64,
        value_name = "N",
        help_heading = "Sampling (ppo, grpo, rloo)"
    )]
    pub max_new_tokens: usize,
    /// Divides the logits, in sampling and in every log-probability.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "F",
        help_heading = "Sampling (ppo, grpo, rloo)"
    )]
    pub temperature: f32,
    /// Sample among this many likeliest tokens; 0: all.
    #[arg(
        long,
        default_value_t = 0,
        value_name = "N",
        help_heading = "Sampling (ppo, grpo, rloo)"
    )]
    pub top_k: usize,
    /// Sample among the likeliest tokens of this probability in all.
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "F",
        help_heading = "Sampling (ppo, grpo, rloo)"
    )]
    pub top_p: f32,
    /// Taken off the reward of an answer that was cut at the limit [default: 0].
    #[arg(long, value_name = "F", help_heading = "Sampling (ppo, grpo, rloo)")]
    pub missing_eos_penalty: Option<f32>,

    /// Times the same answers are learnt from [default: ppo 4, grpo and rloo 1].
    #[arg(long, value_name = "N", help_heading = "Learning (ppo, grpo, rloo)")]
    pub epochs: Option<usize>,
    /// Updates of one epoch [default: 1].
    #[arg(long, value_name = "N", help_heading = "Learning (ppo, grpo, rloo)")]
    pub minibatches: Option<usize>,
    /// Coefficient of the divergence from the start policy [default: 0.05].
    #[arg(long, value_name = "F", help_heading = "Learning (ppo, grpo, rloo)")]
    pub kl_coef: Option<f64>,
    /// Steer ppo's coefficient towards this divergence, in nats a response.
    #[arg(long, value_name = "F", help_heading = "Learning (ppo, grpo, rloo)")]
    pub kl_target: Option<f64>,
    /// Stop when the divergence passes this many nats a response.
    #[arg(long, value_name = "F", help_heading = "Learning (ppo, grpo, rloo)")]
    pub kl_limit: Option<f64>,
    /// Where ppo charges the divergence [default: reward-k1].
    #[arg(long, value_enum, help_heading = "Learning (ppo, grpo, rloo)")]
    pub kl_penalty: Option<KlPenaltyName>,
    /// Where ppo's values come from [default: head].
    #[arg(long, value_enum, help_heading = "Learning (ppo, grpo, rloo)")]
    pub value_model: Option<ValueModelName>,
    /// Ratios count within 1 ± this [default: 0.2].
    #[arg(long, value_name = "F", help_heading = "Learning (ppo, grpo, rloo)")]
    pub clip_range: Option<f32>,
    /// Factor of ppo's entropy bonus [default: 0].
    #[arg(long, value_name = "F", help_heading = "Learning (ppo, grpo, rloo)")]
    pub entropy_coef: Option<f32>,

    /// grpo: grpo, bnpo, dr-grpo or dapo [default: dapo]; dpo: sigmoid, sigmoid-norm, ipo,
    /// ipo-sum, hinge or robust [default: sigmoid].
    #[arg(long, value_name = "NAME", help_heading = "Losses")]
    pub loss: Option<String>,
    /// How strongly dpo holds the policy near the start [default: 0.1].
    #[arg(long, value_name = "F", help_heading = "Losses")]
    pub beta: Option<f32>,
    /// Rate of wrong labels that dpo assumes [default: 0].
    #[arg(long, value_name = "F", help_heading = "Losses")]
    pub label_smoothing: Option<f32>,
}

/// How a policy learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    /// Proximal policy optimisation.
    Ppo,
    /// Group-relative policy optimisation.
    Grpo,
    /// REINFORCE with a leave-one-out baseline.
    Rloo,
    /// Direct preference optimisation.
    Dpo,
    /// Supervised fine-tuning.
    Sft,
}

impl Algorithm {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::Grpo => "grpo",
            Self::Rloo => "rloo",
            Self::Dpo => "dpo",
            Self::Sft => "sft",
        }
    }

    /// Whether it learns from its own samples.
    pub fn samples(self) -> bool {
        matches!(self, Self::Ppo | Self::Grpo | Self::Rloo)
    }
}

/// Names of [`prefgrad::train::KlPenalty`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KlPenaltyName {
    /// In the reward, estimate k1.
    RewardK1,
    /// In the reward, estimate k3.
    RewardK3,
    /// In the loss, estimate k2.
    LossK2,
    /// In the loss, estimate k3.
    LossK3,
}

/// Names of [`prefgrad::train::ValueModel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ValueModelName {
    /// A head on the policy's trunk.
    Head,
    /// A network of its own.
    Network,
}

impl Args {
    /// The time that training may take.
    pub fn time_limit(&self) -> Option<Duration> {
        self.minutes
            .and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok())
    }

    /// Refuses options that say nothing to the algorithm: they would be passed over silently.
    ///
    /// # Errors
    ///
    /// Names the option.
    pub fn check(&self) -> Result<()> {
        use Algorithm::{Dpo, Grpo, Ppo, Rloo, Sft};
        let sampled: &[Algorithm] = &[Ppo, Grpo, Rloo];
        let recorded: &[Algorithm] = &[Dpo, Sft];
        let given: [(&str, bool, &[Algorithm]); 23] = [
            ("--width", self.width.is_some(), &[Sft]),
            ("--layers", self.layers.is_some(), &[Sft]),
            ("--heads", self.heads.is_some(), &[Sft]),
            ("--steps", self.steps.is_some(), recorded),
            ("--accumulation", self.accumulation.is_some(), recorded),
            ("--evaluate-every", self.evaluate_every.is_some(), recorded),
            ("--patience", self.patience.is_some(), recorded),
            ("--rollouts", self.rollouts.is_some(), sampled),
            ("--prompts", self.prompts.is_some(), sampled),
            ("--samples", self.samples.is_some(), sampled),
            (
                "--missing-eos-penalty",
                self.missing_eos_penalty.is_some(),
                sampled,
            ),
            ("--epochs", self.epochs.is_some(), sampled),
            ("--minibatches", self.minibatches.is_some(), sampled),
            ("--kl-coef", self.kl_coef.is_some(), sampled),
            ("--kl-target", self.kl_target.is_some(), &[Ppo]),
            ("--kl-limit", self.kl_limit.is_some(), sampled),
            ("--kl-penalty", self.kl_penalty.is_some(), &[Ppo]),
            ("--value-model", self.value_model.is_some(), &[Ppo]),
            ("--clip-range", self.clip_range.is_some(), sampled),
            ("--entropy-coef", self.entropy_coef.is_some(), &[Ppo]),
            ("--loss", self.loss.is_some(), &[Grpo, Dpo]),
            ("--beta", self.beta.is_some(), &[Dpo]),
            ("--label-smoothing", self.label_smoothing.is_some(), &[Dpo]),
        ];
        for (name, is_given, algorithms) in given {
            if is_given && !algorithms.contains(&self.algorithm) {
                let names: Vec<&str> = algorithms.iter().map(|a| a.name()).collect();
                bail!(
                    "{name} is for {}: it says nothing to {}",
                    names.join(", "),
                    self.algorithm.name()
                );
            }
        }
        let sizes = [self.width, self.layers, self.heads];
        if self.policy.is_some() && sizes.iter().any(Option::is_some) {
            bail!("--width, --layers and --heads are for a model from scratch, not for --policy");
        }
        if self.policy.is_none() && self.algorithm != Sft {
            bail!(
                "{} needs a --policy to start from: train one with --algorithm sft",
                self.algorithm.name()
            );
        }
        if self.reward.is_empty() && self.algorithm.samples() {
            bail!(
                "{} needs a --reward model: train one with train_reward",
                self.algorithm.name()
            );
        }
        if let Some(minutes) = self.minutes.filter(|m| !(m.is_finite() && *m > 0.0)) {
            bail!("--minutes is {minutes}: it must be positive");
        }
        Ok(())
    }
}
