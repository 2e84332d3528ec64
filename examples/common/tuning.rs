//! The loop around a policy that learns from records: supervised fine-tuning and DPO.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use prefgrad::model::Policy;
use prefgrad::train::{BestLoss, DpoStep, DpoTrainer, Reading, SftStep, SftTrainer};

use crate::metrics::Metrics;
use crate::policy::{Ended, Limits};
use crate::progress::{Figure, Progress};

/// Updates before a warning of the same kind is shown again.
const WARN_EVERY: u64 = 50;

/// What one update did.
pub struct Update {
    step: u64,
    tokens: usize,
    figures: Vec<Figure>,
    values: Vec<(&'static str, f64)>,
    warnings: Vec<String>,
}

/// A trainer of a policy on records, whatever the loss.
pub trait Tuner {
    /// The policy.
    fn policy(&self) -> &Policy;
    /// What must be computed before the first update and evaluation, from the policy's weights.
    ///
    /// # Errors
    ///
    /// As the trainer's.
    fn prepare(&mut self) -> prefgrad::Result<()> {
        Ok(())
    }
    /// Updates in all.
    fn total(&self) -> u64;
    /// Updates made.
    fn updates(&self) -> u64;
    /// Whether all updates were made, or validation no longer gained.
    fn is_over(&self) -> bool;
    /// Makes one update; what became known of it and of those before.
    ///
    /// # Errors
    ///
    /// As the trainer's.
    fn advance(&mut self) -> prefgrad::Result<Vec<Update>>;
    /// What is not known yet.
    ///
    /// # Errors
    ///
    /// As the trainer's.
    fn rest(&mut self) -> prefgrad::Result<Vec<Update>>;
    /// Whether an evaluation is due after the update just made.
    fn evaluation_is_due(&self) -> bool;
    /// Judges the policy on the validation records.
    ///
    /// # Errors
    ///
    /// As the trainer's.
    fn evaluate(&mut self) -> prefgrad::Result<Vec<(&'static str, f64)>>;
    /// Takes the weights of the best evaluation, if there was one.
    ///
    /// # Errors
    ///
    /// As the trainer's.
    fn finish(&mut self) -> prefgrad::Result<()>;
    /// The lowest validation loss.
    fn best(&self) -> Option<BestLoss>;
}

/// Trains until the end, a limit or an interruption; the policy then has the best weights. With
/// `evaluates` those of the end are among the candidates, wherever the end is.
///
/// Writes `metrics.jsonl` and TensorBoard events into `folder`.
///
/// # Errors
///
/// What the trainer reports, and files that cannot be written.
pub fn tune(
    tuner: &mut dyn Tuner,
    (folder, name): (&Path, &str),
    limits: Limits<'_>,
    evaluates: bool,
) -> Result<Ended> {
    let mut metrics = Metrics::create(folder)?;
    let mut bar = Progress::new(name, tuner.updates(), tuner.total()).ends_after(limits.time);
    let started = Instant::now();
    let (mut quiet_until, mut evaluated) = (0, 0);
    let ended = loop {
        if tuner.is_over() {
            break match tuner.updates() < tuner.total() {
                true => Ended::Early,
                false => Ended::Finished,
            };
        }
        if let Some(ended) = limits.reached(started.elapsed()) {
            break ended;
        }
        let updates = tuner.advance()?;
        take_in(&mut bar, &mut metrics, &updates, &mut quiet_until)?;
        if tuner.evaluation_is_due() {
            let updates = tuner.rest()?;
            take_in(&mut bar, &mut metrics, &updates, &mut quiet_until)?;
            evaluate(tuner, &mut metrics, &bar)?;
            evaluated = tuner.updates();
        }
    };
    let updates = tuner.rest()?;
    take_in(&mut bar, &mut metrics, &updates, &mut quiet_until)?;
    if evaluates && evaluated < tuner.updates() {
        evaluate(tuner, &mut metrics, &bar)?;
    }
    tuner.finish()?;
    bar.finish();
    Ok(ended)
}

fn evaluate(tuner: &mut dyn Tuner, metrics: &mut Metrics, bar: &Progress) -> Result<()> {
    let values = tuner.evaluate()?;
    metrics.record(tuner.updates(), &values)?;
    let shown: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{} {value:.4}", name.replace('/', " ")))
        .collect();
    let step = tuner.updates();
    bar.print_line(&format!("step {step:>5}  {}", shown.join("  ")));
    Ok(())
}

fn take_in(
    bar: &mut Progress,
    metrics: &mut Metrics,
    updates: &[Update],
    quiet_until: &mut u64,
) -> Result<()> {
    for update in updates {
        metrics.record(update.step, &update.values)?;
        if update.step >= *quiet_until && !update.warnings.is_empty() {
            *quiet_until = update.step + WARN_EVERY;
            for warning in &update.warnings {
                bar.print_line(&format!("step {}: {warning}", update.step));
            }
        }
    }
    // They became known at the same time: the speed is that of all of them.
    if let Some(last) = updates.last() {
        let tokens = updates.iter().map(|update| update.tokens as u64).sum();
        bar.show(last.step, tokens, &last.figures);
    }
    Ok(())
}

fn updates_of<Step>(reading: Reading<Step>, describe: impl Fn(&Step) -> Update) -> Vec<Update> {
    let mut updates: Vec<Update> = reading.steps.iter().map(describe).collect();
    if let Some(last) = updates.last_mut() {
        last.values
            .push(("grad_norm", f64::from(reading.grad_norm)));
    }
    updates
}

fn of_sft(step: &SftStep) -> Update {
    Update {
        step: step.step,
        tokens: step.tokens,
        figures: vec![Figure::new("loss", step.loss, 4)],
        values: vec![
            ("train/loss", step.loss),
            ("train/targets", step.targets as f64),
            ("learning_rate", step.learning_rate),
            ("tokens", step.tokens as f64),
            ("tokens_without_sharing", step.tokens_without_sharing as f64),
        ],
        warnings: Vec::new(),
    }
}

fn of_dpo(step: &DpoStep) -> Update {
    Update {
        step: step.step,
        tokens: step.tokens,
        figures: vec![
            Figure::new("loss", step.loss, 4),
            Figure::share("accuracy", step.accuracy),
            Figure::new("margin", step.margin, 2),
        ],
        values: vec![
            ("train/loss", step.loss),
            ("train/accuracy", step.accuracy),
            ("train/margin", step.margin),
            ("train/chosen_reward", step.chosen_reward),
            ("train/rejected_reward", step.rejected_reward),
            ("train/chosen_logprob", step.chosen_logprob),
            ("train/rejected_logprob", step.rejected_logprob),
            ("train/entropy", step.entropy),
            ("learning_rate", step.learning_rate),
            ("tokens", step.tokens as f64),
            ("tokens_without_sharing", step.tokens_without_sharing as f64),
        ],
        warnings: step.warnings().iter().map(ToString::to_string).collect(),
    }
}

impl Tuner for SftTrainer {
    fn policy(&self) -> &Policy {
        self.policy()
    }

    fn total(&self) -> u64 {
        self.options().tuning.steps
    }

    fn updates(&self) -> u64 {
        self.updates()
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn advance(&mut self) -> prefgrad::Result<Vec<Update>> {
        let reading = self.step()?;
        Ok(updates_of(reading.unwrap_or_default(), of_sft))
    }

    fn rest(&mut self) -> prefgrad::Result<Vec<Update>> {
        Ok(updates_of(self.read()?, of_sft))
    }

    fn evaluation_is_due(&self) -> bool {
        self.evaluation_is_due()
    }

    fn evaluate(&mut self) -> prefgrad::Result<Vec<(&'static str, f64)>> {
        Ok(vec![("validation/loss", self.evaluate()?)])
    }

    fn finish(&mut self) -> prefgrad::Result<()> {
        self.finish()
    }

    fn best(&self) -> Option<BestLoss> {
        self.best()
    }
}

impl Tuner for DpoTrainer {
    fn prepare(&mut self) -> prefgrad::Result<()> {
        DpoTrainer::prepare(self)
    }
    fn policy(&self) -> &Policy {
        self.policy()
    }

    fn total(&self) -> u64 {
        self.options().tuning.steps
    }

    fn updates(&self) -> u64 {
        self.updates()
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    fn advance(&mut self) -> prefgrad::Result<Vec<Update>> {
        let reading = self.step()?;
        Ok(updates_of(reading.unwrap_or_default(), of_dpo))
    }

    fn rest(&mut self) -> prefgrad::Result<Vec<Update>> {
        Ok(updates_of(self.read()?, of_dpo))
    }

    fn evaluation_is_due(&self) -> bool {
        self.evaluation_is_due()
    }

    fn evaluate(&mut self) -> prefgrad::Result<Vec<(&'static str, f64)>> {
        let evaluation = self.evaluate()?;
        Ok(vec![
            ("validation/loss", evaluation.loss),
            ("validation/accuracy", evaluation.accuracy),
            ("validation/margin", evaluation.margin),
        ])
    }

    fn finish(&mut self) -> prefgrad::Result<()> {
        self.finish()
    }

    fn best(&self) -> Option<BestLoss> {
        self.best()
    }
}
