//! The loop around a policy that learns from its own samples.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use prefgrad::Gpu;
use prefgrad::model::{Critic, ModelConfig, Policy};
use prefgrad::train::{
    GrpoOptions, GrpoTrainer, PolicyStep, PpoOptions, PpoTrainer, Reward, RolloutOptions, Warning,
};

use crate::metrics::Metrics;
use crate::progress::{Figure, Progress};
use crate::rewards::RolloutReward;

/// Rollouts before a warning of the same kind is shown again.
const WARN_EVERY: u64 = 10;

/// What else ends a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Set by Ctrl-C.
    pub interrupted: &'a AtomicBool,
    /// Wall time from the first step on.
    pub time: Option<Duration>,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps were made.
    Finished,
    /// The trainer saw a reason: the divergence passed its limit, or validation gained no more.
    Early,
    /// The time was up.
    TimeUp,
    /// Ctrl-C was pressed.
    Interrupted,
}

impl Limits<'_> {
    /// Whether to stop now, a while after the first step.
    pub fn reached(&self, elapsed: Duration) -> Option<Ended> {
        if self.interrupted.load(Ordering::Relaxed) {
            Some(Ended::Interrupted)
        } else if self.time.is_some_and(|limit| elapsed >= limit) {
            Some(Ended::TimeUp)
        } else {
            None
        }
    }
}

/// How a policy is trained on its samples.
#[derive(Debug, Clone)]
pub enum PolicyOptions {
    /// PPO.
    Ppo(PpoOptions),
    /// GRPO or RLOO.
    Grpo(GrpoOptions),
}

/// A trainer of a policy on its samples, whatever the algorithm.
pub enum PolicyTrainer {
    /// PPO.
    Ppo(Box<PpoTrainer>),
    /// GRPO or RLOO.
    Grpo(Box<GrpoTrainer>),
}

impl PolicyTrainer {
    /// As [`PpoTrainer::new`] and [`GrpoTrainer::new`].
    ///
    /// # Errors
    ///
    /// Theirs.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: PolicyOptions,
        prompts: Vec<Vec<u32>>,
    ) -> prefgrad::Result<Self> {
        Ok(match options {
            PolicyOptions::Ppo(options) => {
                Self::Ppo(Box::new(PpoTrainer::new(gpu, config, options, prompts)?))
            }
            PolicyOptions::Grpo(options) => {
                Self::Grpo(Box::new(GrpoTrainer::new(gpu, config, options, prompts)?))
            }
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        match self {
            Self::Ppo(trainer) => trainer.policy(),
            Self::Grpo(trainer) => trainer.policy(),
        }
    }

    /// PPO's value model.
    pub fn critic(&self) -> Option<&Critic> {
        match self {
            Self::Ppo(trainer) => trainer.critic(),
            Self::Grpo(_) => None,
        }
    }

    /// Sampling, updates and the divergence from the reference.
    pub fn rollout_options(&self) -> &RolloutOptions {
        match self {
            Self::Ppo(trainer) => &trainer.options().rollout,
            Self::Grpo(trainer) => &trainer.options().rollout,
        }
    }

    /// Makes the policy as it is now the reference.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn start(&mut self) -> prefgrad::Result<()> {
        match self {
            Self::Ppo(trainer) => trainer.start(),
            Self::Grpo(trainer) => trainer.start(),
        }
    }

    /// Rollouts made.
    pub fn rollouts(&self) -> u64 {
        match self {
            Self::Ppo(trainer) => trainer.rollouts(),
            Self::Grpo(trainer) => trainer.rollouts(),
        }
    }

    /// Whether all rollouts were made, or the divergence passed its limit.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Ppo(trainer) => trainer.is_over(),
            Self::Grpo(trainer) => trainer.is_over(),
        }
    }

    /// One rollout and the updates made from it.
    ///
    /// # Errors
    ///
    /// As [`PpoTrainer::step`].
    pub fn step(
        &mut self,
        reward: &mut dyn Reward,
    ) -> prefgrad::Result<(PolicyStep, Vec<Warning>)> {
        match self {
            Self::Ppo(trainer) => trainer.step(reward),
            Self::Grpo(trainer) => trainer.step(reward),
        }
    }
}

/// What is known of one rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The trainer's figures.
    pub step: PolicyStep,
    /// What the reward had to say beside.
    pub figures: Vec<(&'static str, f64)>,
    /// Wall time of the rollout.
    pub seconds: f64,
}

impl Rollout {
    /// The value that the reward gave under `name`.
    pub fn figure(&self, name: &str) -> Option<f64> {
        let found = self.figures.iter().find(|figure| figure.0 == name);
        found.map(|figure| figure.1)
    }
}

/// Trains until the end, a limit or an interruption; what was learnt so far is then in the policy,
/// and what each rollout did in `rollouts`. Both also hold after an error.
///
/// Writes `metrics.jsonl` and TensorBoard events into `folder`, and shows a bar with the warnings
/// above it.
///
/// # Errors
///
/// What the trainer and the reward report, and files that cannot be written.
pub fn improve(
    trainer: &mut PolicyTrainer,
    reward: &mut dyn RolloutReward,
    (folder, name): (&Path, &str),
    limits: Limits<'_>,
    rollouts: &mut Vec<Rollout>,
) -> Result<Ended> {
    let mut metrics = Metrics::create(folder)?;
    let total = trainer.rollout_options().rollouts;
    let mut bar = Progress::new(name, trainer.rollouts(), total).ends_after(limits.time);
    let mut warned = Warned::default();
    let started = Instant::now();
    let ended = loop {
        if trainer.is_over() {
            break match trainer.rollouts() < total {
                true => Ended::Early,
                false => Ended::Finished,
            };
        }
        if let Some(ended) = limits.reached(started.elapsed()) {
            break ended;
        }
        let before = started.elapsed();
        let (step, warnings) = trainer.step(reward)?;
        let rollout = Rollout {
            figures: reward.figures(),
            seconds: (started.elapsed() - before).as_secs_f64(),
            step,
        };
        metrics.record(rollout.step.rollout, &values(&rollout))?;
        show(&mut bar, &rollout);
        for warning in warned.due(rollout.step.rollout, warnings) {
            bar.print_line(&format!("rollout {}: {warning}", rollout.step.rollout));
        }
        rollouts.push(rollout);
    };
    bar.finish();
    Ok(ended)
}

fn show(bar: &mut Progress, rollout: &Rollout) {
    let step = &rollout.step;
    let tokens = (step.generated_tokens + step.trained_tokens) as u64;
    let figures = [
        Figure::new("reward", step.reward_mean, 3),
        Figure::new("KL", step.kl, 2),
        Figure::new("length", step.length, 1),
        Figure::new("entropy", step.entropy, 2),
    ];
    bar.show(step.rollout, tokens, &figures);
}

fn values(rollout: &Rollout) -> Vec<(&'static str, f64)> {
    let step = &rollout.step;
    let mut values = vec![
        ("reward/mean", step.reward_mean),
        ("reward/deviation", step.reward_deviation),
        ("policy/kl", step.kl),
        ("policy/kl_coef", step.kl_coef),
        ("policy/entropy", step.entropy),
        ("policy/length", step.length),
        ("policy/finished", step.finished),
        ("policy/groups_without_spread", step.groups_without_spread),
        ("train/loss", step.loss),
        ("train/policy_loss", step.policy_loss),
        ("train/value_loss", step.value_loss),
        ("train/approx_kl", step.approx_kl),
        ("train/clip_fraction", step.clip_fraction),
        ("train/ratio_min", step.ratio[0]),
        ("train/ratio_max", step.ratio[1]),
        ("train/clamped", step.clamped as f64),
        ("train/grad_norm", step.grad_norm),
        ("train/learning_rate", step.learning_rate),
        ("time/generated_tokens", step.generated_tokens as f64),
        ("time/trained_tokens", step.trained_tokens as f64),
        ("time/seconds", rollout.seconds),
    ];
    values.extend(&rollout.figures);
    values
}

/// Which warnings were shown, and when.
#[derive(Debug, Default)]
struct Warned {
    shown: Vec<(std::mem::Discriminant<Warning>, u64)>,
}

impl Warned {
    /// Those that were not shown lately.
    fn due(&mut self, rollout: u64, mut warnings: Vec<Warning>) -> Vec<Warning> {
        warnings.retain(|warning| {
            let kind = std::mem::discriminant(warning);
            match self.shown.iter_mut().find(|shown| shown.0 == kind) {
                Some((_, at)) if rollout < *at + WARN_EVERY => false,
                Some((_, at)) => {
                    *at = rollout;
                    true
                }
                None => {
                    self.shown.push((kind, rollout));
                    true
                }
            }
        });
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_repeated_after_ten_rollouts() {
        let mut warned = Warned::default();
        let kl = |kl| Warning::KlAboveTarget { kl, target: 1.0 };
        assert_eq!(warned.due(1, vec![kl(2.0)]).len(), 1);
        let both = vec![kl(3.0), Warning::NoSpread];
        assert_eq!(warned.due(2, both), [Warning::NoSpread]);
        assert_eq!(warned.due(10, vec![kl(3.0)]), []);
        assert_eq!(warned.due(11, vec![kl(3.0)]).len(), 1);
        assert_eq!(warned.due(12, vec![kl(3.0)]), []);
    }
}
