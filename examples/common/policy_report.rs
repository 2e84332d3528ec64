//! What came of a policy's training: a table, a picture, and `report.json`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::files::OutputFile;
use crate::plot::{PanelOf, Series, panels};
use crate::policy::{Ended, Rollout};
use crate::training::read_series;

/// Rollouts at most whose mean stands for the end of a run.
const LAST: usize = 5;

/// A figure at the start and at the end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it is.
    pub name: String,
    /// At the start.
    pub start: f64,
    /// At the end.
    pub end: f64,
    /// Digits behind the point.
    pub digits: usize,
}

impl Change {
    /// A row of the table.
    pub fn new(name: &str, start: f64, end: f64, digits: usize) -> Self {
        Self {
            name: name.to_owned(),
            start,
            end,
            digits,
        }
    }
}

/// The first rollout beside the mean of the last few (five, or a fifth of a short run): the first
/// was sampled before anything was learnt.
pub fn changes(rollouts: &[Rollout]) -> Vec<Change> {
    let Some(first) = rollouts.first() else {
        return Vec::new();
    };
    let few = (rollouts.len() / 5).clamp(1, LAST);
    let last = &rollouts[rollouts.len() - few..];
    let mean = |value: &dyn Fn(&Rollout) -> f64| last.iter().map(value).sum::<f64>() / few as f64;
    type Value = fn(&Rollout) -> f64;
    let rows: [(&str, Value, usize); 6] = [
        ("reward", |r| r.step.reward_mean, 3),
        ("  its standard deviation", |r| r.step.reward_deviation, 3),
        ("KL from the start, nats a response", |r| r.step.kl, 2),
        ("tokens an answer", |r| r.step.length, 1),
        ("entropy, nats a token", |r| r.step.entropy, 3),
        (
            "answers that end by themselves, %",
            |r| 100.0 * r.step.finished,
            1,
        ),
    ];
    let mut changes: Vec<Change> = rows
        .iter()
        .map(|(name, value, digits)| Change::new(name, value(first), mean(value), *digits))
        .collect();
    for (name, start) in &first.figures {
        let shown = match *name {
            "reward/spread" => "disagreement of the reward models",
            other => other,
        };
        let end = mean(&|rollout| rollout.figure(name).unwrap_or(f64::NAN));
        changes.push(Change::new(shown, *start, end, 3));
    }
    changes
}

/// The figures as a table.
pub fn table(changes: &[Change]) -> String {
    let mut text = format!("  {:<38}{:>10}{:>10}\n", "", "start", "end");
    for change in changes {
        let digits = change.digits;
        let cell = |value: f64| match value.is_finite() {
            true => format!("{value:.digits$}"),
            false => "-".into(),
        };
        let (start, end) = (cell(change.start), cell(change.end));
        let _ = writeln!(text, "  {:<38}{start:>10}{end:>10}", change.name);
    }
    text
}

/// What ended a run, as a sentence without its beginning.
pub fn ending(ended: Ended, steps: u64) -> String {
    match ended {
        Ended::Finished => format!("all {steps} done"),
        Ended::Early => format!("ended early after {steps}"),
        Ended::TimeUp => format!("time is up after {steps}"),
        Ended::Interrupted => format!("interrupted after {steps}"),
    }
}

/// Writes `report.json`: the figures, and `more`.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_report(
    folder: &Path,
    changes: &[Change],
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<()> {
    let mut report = Map::new();
    for (name, value) in more {
        report.insert(name.into(), value);
    }
    let figures: Map<String, Value> = changes
        .iter()
        .map(|change| {
            let both = json!({"start": change.start, "end": change.end});
            (change.name.trim().to_owned(), both)
        })
        .collect();
    report.insert("figures".into(), Value::Object(figures));
    let mut file = OutputFile::create(&folder.join("report.json"))?;
    file.write_all(format!("{:#}\n", Value::Object(report)).as_bytes())?;
    file.commit()?;
    Ok(())
}

/// Draws `curves.png`: reward, divergence, length and entropy against rollouts.
///
/// # Errors
///
/// The file cannot be written.
pub fn policy_curves(
    folder: &Path,
    title: &str,
    rollouts: &[Rollout],
    kl_limit: Option<f64>,
) -> Result<()> {
    let points = |value: fn(&Rollout) -> f64| -> Vec<(f64, f64)> {
        let rollouts = rollouts.iter();
        rollouts
            .map(|r| (r.step.rollout as f64, value(r)))
            .collect()
    };
    let reward = points(|r| r.step.reward_mean);
    let kl = points(|r| r.step.kl);
    let length = points(|r| r.step.length);
    let entropy = points(|r| r.step.entropy);
    let spread = points(|r| r.figure("reward/spread").unwrap_or(f64::NAN));
    let gold = points(|r| r.figure("reward/gold").unwrap_or(f64::NAN));
    let line = |name, points| Series { name, points };
    let mut rewards = vec![line("reward", &reward[..])];
    let known = |points: &[(f64, f64)]| points.iter().any(|p| p.1.is_finite());
    for (name, points) in [("disagreement", &spread), ("gold reward", &gold)] {
        if known(points) {
            rewards.push(line(name, points));
        }
    }
    let panel = |y_label, series, level| PanelOf {
        y_label,
        series,
        level,
    };
    let (kl, length) = ([line("KL", &kl)], [line("length", &length)]);
    let entropy = [line("entropy", &entropy)];
    let charts = [
        panel("reward", &rewards, None),
        panel(
            "KL, nats a response",
            &kl,
            kl_limit.map(|limit| ("limit", limit)),
        ),
        panel("tokens an answer", &length, None),
        panel("entropy, nats a token", &entropy, None),
    ];
    panels(&folder.join("curves.png"), title, "rollout", &charts)
}

/// Draws `curves.png` of supervised fine-tuning or DPO from `metrics.jsonl`: loss, and where there
/// are pairs accuracy and margin.
///
/// # Errors
///
/// The metrics cannot be read or the file cannot be written.
pub fn tuning_curves(folder: &Path, title: &str, with_pairs: bool) -> Result<()> {
    let both = |name: &str| -> Result<[Vec<(f64, f64)>; 2]> {
        Ok([
            read_series(folder, &format!("train/{name}"))?,
            read_series(folder, &format!("validation/{name}"))?,
        ])
    };
    let names: &[&str] = match with_pairs {
        true => &["loss", "accuracy", "margin"],
        false => &["loss"],
    };
    let points = names
        .iter()
        .map(|name| both(name))
        .collect::<Result<Vec<_>>>()?;
    let series: Vec<Vec<Series<'_>>> = points
        .iter()
        .map(|[train, held_out]| {
            let mut lines = vec![Series {
                name: "training",
                points: train,
            }];
            if !held_out.is_empty() {
                lines.push(Series {
                    name: "held out",
                    points: held_out,
                });
            }
            lines
        })
        .collect();
    let charts: Vec<PanelOf<'_>> = names
        .iter()
        .zip(&series)
        .map(|(name, series)| PanelOf {
            y_label: name,
            series,
            level: None,
        })
        .collect();
    panels(&folder.join("curves.png"), title, "step", &charts)
}
