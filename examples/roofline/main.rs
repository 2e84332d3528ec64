//! Each kernel's share of what the device can do at most: `--help` says how.

mod large;
mod probe;
mod row;
mod timing;
mod work;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use example_tools::files::{OutputFile, output_folder};
use example_tools::plot::{Roofline, roofline};
use indicatif::{ProgressBar, ProgressStyle};
use prefgrad::{Error, Gpu, Plan};
use serde::Serialize;

use probe::Roof;
use row::{Row, table};
use timing::{median_seconds, replay};
use work::{Work, checked};

/// Measures what the device can do at most, then every kernel, and prints each kernel's share of it.
///
/// The limits: 64 or 256 MiB are copied from buffer to buffer by a small kernel and by the copy command (GB/s,
/// read and written together; the fastest of them counts), and a small kernel multiplies and adds
/// in registers (GFLOP/s). Then each case for timing of `prefgrad::check` is built, its answers are
/// checked, and it is replayed. Ends with an error where an answer is wrong.
///
/// Those cases are sized for software drivers. A GPU is done with most in the time that starting
/// them takes: measure it with `--large`.
#[derive(Debug, Parser)]
#[command(version, after_long_help = READING)]
struct Args {
    /// Only kernels whose name contains this, as in `attention`.
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// In place of the cases, work of a GPU's size on random numbers; its answers are not checked.
    #[arg(
        long,
        long_help = "In place of the cases, work of a GPU's size on random numbers: products of 4096, a GPT-2's \
            attention, norms, losses and updates, and the shapes of small training steps. Its answers \
            are not checked: `doctor` checks the kernels. What a device has no room for is skipped, \
            with a line that says so. A software driver needs many minutes: choose with --filter. \
            Writes roofline-large.png and roofline-large.json"
    )]
    large: bool,
    /// Where the picture and the figures go: roofline.png and roofline.json.
    #[arg(long, value_name = "FOLDER", default_value = "runs/roofline")]
    out: PathBuf,
    /// How long each case, and each limit, is measured; a GPU runs each for as long before that.
    #[arg(long, default_value_t = 0.3, value_parser = positive)]
    seconds: f64,
}

const READING: &str = "\
HOW TO READ IT

FLOP/byte is a kernel's intensity: what it computes for each byte that it has to move, each tensor
counted once. At a low intensity memory is the limit, at a high one arithmetic:

    limit = min(intensity x copy bandwidth, arithmetic rate)

In roofline.png that is the broken line: the slope is the bandwidth, the level the arithmetic rate. A
point on the line could not be faster on this device without moving less; a point a tenth as high takes
ten times as long as the limit allows. Where a kernel copies more slowly than the copy command, a thin
line shows what that would allow. Each case is a dot; a kernel's number stands at the case with its
lowest share. Kernels that compute nothing have no place on the scale and are only listed.

WHY A SHARE IS LOW

  little work             A dispatch has a fixed price, whatever it does: a case of a few microseconds
                          measures that price. With --large, `reduce.fill, one workgroup` is that
                          price by itself: of a dispatch that waits for the one before it, or of
                          recording one, where that takes longer.
  read more than once     A cost counts each tensor once. Tiles, second passes and recomputed values
                          are not in it, and copies into textures neither.
  dear operations         exp, log, tanh and random numbers are counted as few operations and take
                          many; a division too. Integer arithmetic is not counted at all.
  scattered access        Gathers and scatters by row, and lists that are walked, use parts of what a
                          memory transaction brings.
  chains                  A sum over a sequence, step by step, waits for each step.
  a software driver       A kernel there reads a buffer far more slowly than the processor copies:
                          compare the two copies in the second line of the output.
  a busy device           Whatever else runs on it, and a processor that changes its clock in between,
                          moves limits and kernels apart. Run it twice.

WHY A SHARE IS ABOVE 100 %

The limits are measured, not taken from a data sheet. A case whose tensors fit into the cache is not
held up by the memory that the copy goes through, and a busy device may have been less busy then.";

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if f64::is_finite(value) && value > 0.0 => Ok(value),
        _ => Err("a number above 0".to_owned()),
    }
}

/// What roofline.json holds.
#[derive(Debug, Serialize)]
struct Report<'a> {
    device: String,
    seconds_a_case: f64,
    roof: Roof,
    cases: &'a [Row],
}

fn main() -> Result<()> {
    let args = Args::parse();
    let chosen = chosen(&args)?;
    output_folder(&args.out)?;
    let gpu = Gpu::new()?;
    println!("{} ({:?})", gpu.variants(), gpu.info().device_type);
    let (roof, rows) = measure(&gpu, &chosen, args.seconds)?;
    println!("{}", table(&rows));
    let report = Report {
        device: gpu.variants(),
        seconds_a_case: args.seconds,
        roof,
        cases: &rows,
    };
    let stem = if args.large {
        "roofline-large"
    } else {
        "roofline"
    };
    write_report(&args.out.join(stem).with_extension("json"), &report)?;
    let picture = args.out.join(stem).with_extension("png");
    draw(&picture, &gpu, &roof, &rows)?;
    println!("\n{}", picture.display());
    Ok(())
}

/// What is asked for, by kernel.
fn chosen(args: &Args) -> Result<Vec<Work>> {
    let mut all = if args.large {
        large::works()
    } else {
        checked()
    };
    if let Some(part) = &args.filter {
        all.retain(|work| work.kernel.contains(part));
        ensure!(
            !all.is_empty(),
            "no kernel's name contains `{part}`: names are like `nn.matmul`, and `doctor` lists them"
        );
    }
    all.sort_by_key(|work| work.kernel);
    Ok(all)
}

/// The device's limits, and the times of all work that it has room for.
fn measure(gpu: &Gpu, chosen: &[Work], seconds: f64) -> Result<(Roof, Vec<Row>)> {
    let bar = ProgressBar::new(Roof::probes(gpu) + chosen.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {eta} left  {msg}",
    )?);
    let before = |what: &str| {
        bar.set_message(what.to_owned());
        bar.inc(1);
    };
    let roof = Roof::measure(gpu, seconds, before).context("measuring the device's limits")?;
    bar.suspend(|| print_roof(&roof));
    let mut rows = Vec::with_capacity(chosen.len());
    for work in chosen {
        let name = format!("{} {}", work.kernel, work.name);
        before(&name);
        match work.plan(gpu) {
            Ok(plan) => rows.push(time(&plan, work, &roof, seconds).context(name)?),
            Err(error) if is_too_large(&error) => {
                bar.suspend(|| println!("skipped {name}: {error}"));
            }
            Err(error) => return Err(error.context(name)),
        }
    }
    bar.finish_and_clear();
    Ok((roof, rows))
}

fn is_too_large(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Error::Limit { .. } | Error::OutOfMemory { .. } | Error::Memory { .. })
    )
}

fn print_roof(roof: &Roof) {
    println!(
        "copy {:.2} GB/s by a kernel, {:.2} by command; arithmetic {:.1} GFLOP/s ({} chains a thread)\n",
        roof.copy_kernel_gb_s, roof.copy_command_gb_s, roof.arithmetic_gflop_s, roof.chains
    );
}

fn time(plan: &Plan, work: &Work, roof: &Roof, seconds: f64) -> prefgrad::Result<Row> {
    let encode = |encoder: &mut wgpu::CommandEncoder, times| replay(plan, encoder, times);
    let taken = median_seconds(plan.gpu(), &encode, seconds)?;
    Ok(Row::new(
        work.kernel,
        work.name.as_str(),
        plan.cost(),
        taken,
        roof,
    ))
}

fn write_report(path: &Path, report: &Report) -> Result<()> {
    let mut file = OutputFile::create(path)?;
    serde_json::to_writer_pretty(&mut file, report)?;
    file.write_all(b"\n")?;
    Ok(file.commit()?)
}

fn draw(path: &Path, gpu: &Gpu, roof: &Roof, rows: &[Row]) -> Result<()> {
    let points: Vec<_> = rows.iter().map(Row::point).collect();
    roofline(
        path,
        &Roofline {
            title: &gpu.info().name,
            gb_s: roof.gb_s(),
            kernel_gb_s: roof.copy_kernel_gb_s,
            gflop_s: roof.arithmetic_gflop_s,
            points: &points,
        },
    )
}
