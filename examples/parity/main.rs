//! The same updates as TRL's trainers, number by number: `--help` says how.

use example_tools::table::table_of;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use example_tools::parity::{Difference, Log, Run};
use example_tools::plot::{ParityCurves, Series, parity};
use prefgrad::Gpu;

/// Makes the updates that TRL's RewardTrainer or DPOTrainer made, from the same weights over the
/// same batches, and compares what both measured.
///
/// Runs are in tests/fixtures/parity, made by make_parity.py. Prints the largest difference of
/// each figure, relative where TRL's value is above 1, and beside it how far TRL itself is from
/// the same updates in float64. Ends with exit code 1 if a difference from TRL is over --bound.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The runs, as in tests/fixtures/parity/reward_gpt2.json.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The largest difference allowed.
    #[arg(long, default_value_t = 1e-4)]
    bound: f64,
    /// A folder for pictures of the losses, one a run: parity_<run>.png.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let gpu = Gpu::new()?;
    let mut worst = 0.0f64;
    for path in &args.runs {
        let run = Run::read(path)?;
        let ours = run.train(&gpu)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        println!("{name}: {} updates", ours.loss.len());
        let largest = print_differences(&ours, &run);
        // Not a number is over any bound.
        worst = if largest <= worst { worst } else { largest };
        if let Some(folder) = &args.pictures {
            std::fs::create_dir_all(folder)?;
            picture(
                &folder.join(format!("parity_{name}.png")),
                &name,
                &ours,
                &run,
            )?;
        }
    }
    let over = worst > args.bound || worst.is_nan();
    let relation = if over { "over" } else { "within" };
    println!(
        "the largest difference from TRL is {worst:.1e}, {relation} {:.0e}",
        args.bound
    );
    Ok(ExitCode::from(u8::from(over)))
}

/// Prints a row a figure; the largest difference from TRL.
fn print_differences(ours: &Log, run: &Run) -> f64 {
    let mut table = table_of(
        [
            "",
            "from TRL",
            "at update",
            "from float64",
            "TRL from float64",
        ],
        1,
    );
    let mut worst = 0.0f64;
    let all = ours.figures().into_iter().zip(run.trl.figures());
    for (((name, ours), (_, trl)), (_, exact)) in all.zip(run.f64.figures()) {
        let found = Difference::of(ours, trl);
        table.add_row([
            name.to_owned(),
            format!("{:.1e}", found.largest),
            found.update.to_string(),
            format!("{:.1e}", Difference::of(ours, exact).largest),
            format!("{:.1e}", Difference::of(trl, exact).largest),
        ]);
        worst = if found.largest <= worst {
            worst
        } else {
            found.largest
        };
    }
    println!("{table}");
    worst
}

fn picture(path: &Path, name: &str, ours: &Log, run: &Run) -> Result<()> {
    let points = |value: &dyn Fn(usize) -> f64| -> Vec<(f64, f64)> {
        (0..ours.loss.len().min(run.trl.loss.len()))
            .map(|index| ((index + 1) as f64, value(index)))
            .collect()
    };
    let (trl, exact) = (&run.trl.loss, &run.f64.loss);
    let curves = ParityCurves {
        title: &format!("{name}: the loss of TRL and of prefgrad"),
        theirs: Series {
            name: "TRL, f32 on the CPU",
            points: &points(&|i| trl[i]),
        },
        ours: Series {
            name: "prefgrad, f32",
            points: &points(&|i| ours.loss[i]),
        },
        differences: &[
            Series {
                name: "prefgrad less TRL",
                points: &points(&|i| ours.loss[i] - trl[i]),
            },
            Series {
                name: "float64 less TRL",
                points: &points(&|i| exact[i] - trl[i]),
            },
        ],
    };
    parity(path, &curves)
}
