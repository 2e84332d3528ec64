//! One peer's work in a process of its own: what it takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::rows::{Peer, Row};
use crate::{burn_peer, candle_peer, ours};

/// Samples whose median counts, unless they take longer than [`ENOUGH`] together.
const SAMPLES: usize = 5;
const ENOUGH: Duration = Duration::from_secs(60);
/// CPU time that a sample should take at least: short work is repeated within a sample.
const SAMPLE: Duration = Duration::from_millis(400);
const MOST_REPEATS: f64 = 2000.0;

/// Work that is ready to be done again and again.
pub trait Work {
    /// Does it `times` times and waits until it is done.
    fn run(&mut self, times: usize) -> Result<()>;

    /// What the latest run computed, read from the device.
    fn digests(&mut self) -> Result<Vec<Digest>>;
}

/// What a process has to tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// From the start of the process to the end of the first step.
    pub first_wall_s: f64,
    pub first_cpu_s: f64,
    /// A step after the first ones: medians of samples.
    pub wall_ms: f64,
    pub cpu_ms: f64,
    /// Steps in a sample.
    pub repeats: usize,
    pub peak_mib: f64,
    /// What the first step computed.
    pub first: Vec<Digest>,
    /// What the last one did.
    pub last: Vec<Digest>,
    /// What it ran on.
    pub device: String,
}

/// Opens a peer's work and says what it runs on.
fn open(peer: Peer, row: Row) -> Result<(Box<dyn Work>, String)> {
    match peer {
        Peer::Prefgrad => ours::open(row),
        Peer::Burn => burn_peer::open(row),
        Peer::Candle => candle_peer::open(row),
    }
}

/// Measures in this process, which has done nothing else before.
pub fn measure(peer: Peer, row: Row) -> Result<Measured> {
    let begun = Instant::now();
    let (mut work, device) = open(peer, row)?;
    work.run(1)?;
    let (first_wall, first_cpu) = (begun.elapsed(), ProcessTime::now().as_duration());
    let first = work.digests()?;
    check_finite(&first)?;

    let (_, warm) = time(work.as_mut(), 1)?;
    let repeats = SAMPLE.as_secs_f64() / warm.as_secs_f64().max(1e-6);
    let repeats = repeats.ceil().clamp(1.0, MOST_REPEATS) as usize;
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while walls.len() < SAMPLES && (walls.len() < 2 || started.elapsed() < ENOUGH) {
        let (wall, cpu) = time(work.as_mut(), repeats)?;
        walls.push(1e3 * wall.as_secs_f64() / repeats as f64);
        cpus.push(1e3 * cpu.as_secs_f64() / repeats as f64);
    }
    let last = work.digests()?;
    check_finite(&last)?;
    if row.is_step() {
        check_falling(&first, &last)?;
    }
    Ok(Measured {
        first_wall_s: first_wall.as_secs_f64(),
        first_cpu_s: first_cpu.as_secs_f64(),
        wall_ms: median(walls),
        cpu_ms: median(cpus),
        repeats,
        peak_mib: peak_memory_mib(),
        first,
        last,
        device,
    })
}

/// Wall and CPU time of `times` steps.
fn time(work: &mut dyn Work, times: usize) -> Result<(Duration, Duration)> {
    let (begun, used) = (Instant::now(), ProcessTime::now());
    work.run(times)?;
    Ok((begun.elapsed(), used.elapsed()))
}

fn check_finite(digests: &[Digest]) -> Result<()> {
    for digest in digests {
        ensure!(digest.is_finite(), "{} is not finite", digest.name);
    }
    Ok(())
}

/// The same batch again and again: its loss must fall.
fn check_falling(first: &[Digest], last: &[Digest]) -> Result<()> {
    for (first, last) in first.iter().zip(last) {
        let (from, to) = (first.projection, last.projection);
        ensure!(to < from, "{} does not fall: {from} to {to}", first.name);
    }
    Ok(())
}

/// The middle one of the values, zero of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The most memory that this process has held, zero where the system does not say.
fn peak_memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
