//! The same training work by prefgrad, burn and candle, on one machine: see `README.md`.

mod burn_peer;
mod candle_peer;
mod data;
mod digest;
mod measure;
mod ours;
mod rows;
mod runner;
mod table;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use rows::{Peer, Row};

/// The same training work by prefgrad, burn and candle, on one machine.
///
/// Every row of the table is a piece of work that all of them do with the same numbers. A
/// measurement has a process of its own; the peers take turns, round after round, and medians
/// count. CPU time is that of all threads of the process: on a software driver it is what the
/// kernels cost, on a GPU only what the host does, and there wall time counts. Memory is the most
/// that the process held, which on a software driver includes the device's.
///
/// The first step stands apart: it includes opening the device, compiling and, for burn, minutes
/// of tuning. What it computed is compared between the peers; who differs by more than 1e-3, or
/// whose loss does not fall, has no figures.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Options {
    /// Rows to measure, as in `matmul_512,layer_norm`; all without
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<Row>,
    /// Who takes part, in this order; the others are compared with the first
    #[arg(
        long,
        value_name = "PEER",
        value_delimiter = ',',
        default_value = "prefgrad,burn,candle"
    )]
    peers: Vec<Peer>,
    /// Processes of each peer and row, whose median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
}

const EXAMPLES: &str = "\
Examples:
  peers                                      everything: an hour, most of it burn's tuning
  peers --only step_a --rounds 1             one whole update, once
  peers --peers prefgrad,candle              without burn: a few minutes
  peers --only matmul_512,matmul_1024        two rows

On a machine without a GPU, Mesa's software driver (lavapipe) serves prefgrad and burn.
Close other programs: CPU time suffers less from company than wall time, but it does.";

fn run() -> Result<()> {
    if runner::measure_if_asked()? {
        return Ok(());
    }
    let options = Options::parse();
    ensure!(options.rounds > 0, "--rounds must be 1 or more");
    let rows = match options.only.is_empty() {
        true => Row::value_variants(),
        false => &options.only,
    };
    let lines = runner::run(rows, &options.peers, options.rounds)?;
    for &peer in &options.peers {
        let device = lines.iter().find_map(|line| line.measured(peer));
        if let Some(measured) = device {
            println!("{peer}: {}", measured.device);
        }
    }
    println!("\n{}", table::cpu(&lines, &options.peers));
    println!("\n{}\n", table::wall(&lines, &options.peers));
    for remark in table::remarks(&lines) {
        println!("{remark}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
