//! The loop around a [`RewardTrainer`]: progress, metrics, checkpoints, Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use prefgrad::train::{Phase, Reading, RewardTrainer};
use serde_json::Value;

use crate::files::open_text;
use crate::metrics::Metrics;
use crate::progress::{Progress, StepStatus};

/// How a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Training is over.
    Finished,
    /// Ctrl-C was pressed; a checkpoint was written.
    Interrupted,
}

/// A flag that Ctrl-C sets, for a run that then leaves a checkpoint. A second Ctrl-C ends the
/// program at once.
///
/// # Errors
///
/// Where the system refuses a signal handler.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    interrupt_flag_saying("stopping after this step, with a checkpoint (again to stop at once)")
}

/// As [`interrupt_flag`], with a message of what will happen.
///
/// # Errors
///
/// Where the system refuses a signal handler.
pub fn interrupt_flag_saying(message: &'static str) -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("{message}");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

/// Trains until the end or an interruption.
///
/// Writes `metrics.jsonl` and TensorBoard events into `folder`, and a checkpoint every
/// `checkpoint_every` updates (0: only when interrupted).
///
/// # Errors
///
/// What the trainer reports, and files that cannot be written.
pub fn train(
    trainer: &mut RewardTrainer,
    folder: &Path,
    checkpoint_every: u64,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let mut metrics = match trainer.updates() {
        0 => Metrics::create(folder)?,
        updates => Metrics::resume(folder, updates)?,
    };
    let mut bar = progress(trainer);
    let mut phase = trainer.phase();
    while trainer.phase() != Phase::Done {
        if let Some(reading) = trainer.step()? {
            record(trainer, &mut metrics, &reading)?;
            show(&mut bar, &reading);
        }
        if trainer.evaluation_is_due() {
            evaluate(trainer, &mut metrics, &bar)?;
        }
        if trainer.phase() != phase {
            bar.finish();
            phase = trainer.phase();
            if phase != Phase::Done {
                bar = progress(trainer);
            }
        }
        let stop = interrupted.load(Ordering::Relaxed);
        let due = checkpoint_every > 0 && trainer.updates().is_multiple_of(checkpoint_every);
        if stop || due {
            let reading = trainer.read()?;
            record(trainer, &mut metrics, &reading)?;
            trainer.save_checkpoint(folder)?;
        }
        if stop && trainer.phase() != Phase::Done {
            bar.finish();
            return Ok(Outcome::Interrupted);
        }
    }
    trainer.finish()?;
    Ok(Outcome::Finished)
}

fn progress(trainer: &RewardTrainer) -> Progress {
    let options = trainer.options();
    let (name, total) = match trainer.phase() {
        Phase::Language => ("language", options.pretrain_steps),
        Phase::Comparisons | Phase::Done => ("comparisons", options.steps),
    };
    Progress::new(name, trainer.step_in_phase(), total)
}

/// Shows all steps of a reading as one: they became known at the same time.
fn show(bar: &mut Progress, reading: &Reading) {
    let Some(last) = reading.steps.last() else {
        return;
    };
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let accuracies: Vec<f64> = reading
        .steps
        .iter()
        .filter_map(|step| step.accuracy)
        .collect();
    bar.update(StepStatus {
        step: last.step,
        tokens: reading.steps.iter().map(|step| step.tokens as u64).sum(),
        loss: mean(reading.steps.iter().map(|step| step.loss).collect()),
        accuracy: (!accuracies.is_empty()).then(|| mean(accuracies)),
    });
}

fn record(trainer: &RewardTrainer, metrics: &mut Metrics, reading: &Reading) -> Result<()> {
    let last = reading.steps.len().saturating_sub(1);
    for (index, step) in reading.steps.iter().enumerate() {
        let before = match step.phase {
            Phase::Language => 0,
            Phase::Comparisons | Phase::Done => trainer.options().pretrain_steps,
        };
        let mut values = vec![
            ("learning_rate", step.learning_rate),
            ("tokens", step.tokens as f64),
            ("tokens_without_sharing", step.tokens_without_sharing as f64),
        ];
        match step.phase {
            Phase::Language => values.push(("language/loss", step.loss)),
            Phase::Comparisons | Phase::Done => {
                values.push(("train/loss", step.loss));
                values.extend(step.accuracy.map(|value| ("train/accuracy", value)));
                values.extend(step.gap.map(|value| ("train/gap", value)));
                values.extend(step.reward_mean.map(|value| ("train/reward_mean", value)));
            }
        }
        if index == last {
            values.push(("grad_norm", f64::from(reading.grad_norm)));
        }
        metrics.record(before + step.step, &values)?;
    }
    Ok(())
}

fn evaluate(trainer: &mut RewardTrainer, metrics: &mut Metrics, bar: &Progress) -> Result<()> {
    let reading = trainer.read()?;
    record(trainer, metrics, &reading)?;
    let evaluation = trainer.evaluate()?;
    metrics.record(
        trainer.updates(),
        &[
            ("validation/loss", evaluation.loss),
            ("validation/accuracy", evaluation.accuracy()),
        ],
    )?;
    bar.print_line(&format!(
        "step {:>5}  validation loss {:.4}  accuracy {:.1} % of {}",
        trainer.step_in_phase(),
        evaluation.loss,
        100.0 * evaluation.accuracy(),
        evaluation.pairs
    ));
    Ok(())
}

/// The values of one name in `metrics.jsonl`, as `(step, value)`.
///
/// # Errors
///
/// The file cannot be read.
pub fn read_series(folder: &Path, name: &str) -> Result<Vec<(f64, f64)>> {
    use std::io::BufRead;
    let mut points = Vec::new();
    for line in open_text(&folder.join("metrics.jsonl"))?.lines() {
        let value: Value = serde_json::from_str(&line?)?;
        if let (Some(step), Some(y)) = (value["step"].as_f64(), value[name].as_f64()) {
            points.push((step, y));
        }
    }
    Ok(points)
}
