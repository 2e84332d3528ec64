//! Processes, one for each measurement, and what they say together.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::digest::difference;
use crate::measure::{Measured, measure, median};
use crate::rows::{Peer, Row};

/// Tells a process of this program that it is one that measures, and what.
const TASK: &str = "PREFGRAD_PEERS_TASK";

/// What a peer's processes said: medians, or why there are none.
pub type Outcome = Result<Measured, String>;

/// A row with an outcome for each peer that takes part.
pub struct Line {
    pub row: Row,
    pub outcomes: Vec<(Peer, Outcome)>,
}

impl Line {
    pub fn of(&self, peer: Peer) -> Option<&Outcome> {
        let found = self.outcomes.iter().find(|(other, _)| *other == peer);
        found.map(|(_, outcome)| outcome)
    }

    pub fn measured(&self, peer: Peer) -> Option<&Measured> {
        self.of(peer)?.as_ref().ok()
    }
}

/// Measures and prints, if this process was started to do that; says whether it was.
pub fn measure_if_asked() -> Result<bool> {
    let Ok(task) = env::var(TASK) else {
        return Ok(false);
    };
    let parsed = task.split_once(' ').and_then(|(peer, row)| {
        let peer = Peer::from_str(peer, false).ok()?;
        Some((peer, Row::from_str(row, false).ok()?))
    });
    let (peer, row) = parsed.with_context(|| format!("{TASK} is `{task}`, which means nothing"))?;
    println!("{}", serde_json::to_string(&measure(peer, row)?)?);
    Ok(true)
}

/// Runs every row with every peer, `rounds` times in turns.
pub fn run(rows: &[Row], peers: &[Peer], rounds: usize) -> Result<Vec<Line>> {
    let bar = progress(rows.len() * rounds * peers.len());
    let mut lines = Vec::new();
    for &row in rows {
        let caches = TempDir::new().context("no place for a row's caches")?;
        let mut runs: Vec<(Peer, Result<Vec<Measured>, String>)> =
            peers.iter().map(|&peer| (peer, Ok(vec![]))).collect();
        for round in 1..=rounds {
            for (peer, runs) in &mut runs {
                bar.set_message(format!("{row}: {peer}, round {round} of {rounds}"));
                if let Ok(so_far) = runs {
                    match spawn(*peer, row, caches.path())? {
                        Ok(measured) => so_far.push(measured),
                        Err(reason) => {
                            bar.println(format!("{row}: {peer} fails: {reason}"));
                            *runs = Err(reason);
                        }
                    }
                }
                bar.inc(1);
            }
        }
        lines.push(judge(row, runs));
    }
    bar.finish_and_clear();
    Ok(lines)
}

fn progress(len: usize) -> ProgressBar {
    let bar = ProgressBar::new(len as u64);
    let template = "{elapsed_precise} {bar:30} {pos}/{len} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_secs(1));
    bar
}

/// One measurement in a process of its own. An error here is ours, one inside is the peer's.
///
/// Compiled kernels and burn's tuning are kept in `caches`, which a row's first round finds empty:
/// Mesa goes by `XDG_CACHE_HOME`, and burn does where it runs outside a package.
fn spawn(peer: Peer, row: Row, caches: &Path) -> Result<Outcome> {
    let program = env::current_exe().context("where this program lies is unknown")?;
    let output = Command::new(program)
        .env(TASK, format!("{peer} {row}"))
        .env("XDG_CACHE_HOME", caches)
        .current_dir(caches)
        .output()
        .context("cannot start a process that measures")?;
    if !output.status.success() {
        let reason = reason(&String::from_utf8_lossy(&output.stderr));
        return Ok(Err(reason.unwrap_or_else(|| output.status.to_string())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().context("a process said nothing")?;
    Ok(Ok(serde_json::from_str(line)?))
}

/// The line of an error output that says most.
fn reason(errors: &str) -> Option<String> {
    let lines = || {
        errors
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    let panic = lines()
        .skip_while(|line| !line.contains("panicked at"))
        .nth(1);
    let line = panic.or_else(|| lines().next_back())?;
    let cut: String = line.chars().take(200).collect();
    Some(cut)
}

/// What the rounds say together; a peer whose answers differ from the first one's has failed.
fn judge(row: Row, runs: Vec<(Peer, Result<Vec<Measured>, String>)>) -> Line {
    let merged = runs.into_iter().map(|(peer, runs)| {
        let merged = runs.and_then(|runs| merge(&runs).map_err(|error| error.to_string()));
        (peer, merged)
    });
    let mut outcomes: Vec<(Peer, Outcome)> = merged.collect();
    let truth = outcomes.iter().find_map(|(_, outcome)| {
        let measured = outcome.as_ref().ok()?;
        Some(measured.first.clone())
    });
    for (_, outcome) in &mut outcomes {
        if let (Ok(measured), Some(truth)) = (&outcome, &truth)
            && let Some(difference) = difference(truth, &measured.first)
        {
            *outcome = Err(difference);
        }
    }
    Line { row, outcomes }
}

/// Medians; but the first step is that of the first round, which found no caches.
fn merge(runs: &[Measured]) -> Result<Measured> {
    let Some(first) = runs.first() else {
        bail!("no round was run");
    };
    let of = |figure: fn(&Measured) -> f64| median(runs.iter().map(figure).collect());
    Ok(Measured {
        wall_ms: of(|run| run.wall_ms),
        cpu_ms: of(|run| run.cpu_ms),
        peak_mib: of(|run| run.peak_mib),
        ..first.clone()
    })
}
