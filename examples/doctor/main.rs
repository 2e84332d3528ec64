//! Checks every kernel on the device in hand: `--help` says how.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use prefgrad::check::{Case, Purpose, Verdict, cases, driver};
use prefgrad::{Gpu, GpuOptions, MatmulDesign, MatmulTuning, Tiling};

/// Names the device and runs every kernel's known-answer cases on it.
///
/// Prints a row a case: its largest error, relative to the largest expected value, and the error
/// allowed. Ends with exit code 1 if a kernel is wrong; a driver fault that the kernels stay clear
/// of is a warning.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Only kernels whose name contains this, as in `attention`.
    #[arg(long, value_name = "PART")]
    kernel: Option<String>,
    /// Also run the large cases that benches time.
    #[arg(long)]
    large: bool,
    /// Do not use subgroups: checks the kernels that every device can run.
    #[arg(long)]
    no_subgroups: bool,
    /// Check nothing: time the designs of matrix product, for some seconds, and save in this folder
    /// which was fastest. With PREFGRAD_TUNING=FOLDER every program of this crate then uses it.
    #[arg(long, value_name = "FOLDER")]
    tune: Option<PathBuf>,
    /// One row a kernel instead of one a case.
    #[arg(long)]
    summary: bool,
}

const PRODUCT: &str = "nn.matmul";

/// A case and how it went.
struct Outcome {
    /// The kernel, for matrix products with the design.
    kernel: String,
    name: String,
    result: prefgrad::Result<Vec<Verdict>>,
}

impl Outcome {
    fn passed(&self) -> bool {
        matches!(&self.result, Ok(verdicts) if verdicts.iter().all(Verdict::passed))
    }

    /// The output closest to its bound, or furthest past it.
    fn worst(&self) -> Option<&Verdict> {
        let verdicts = self.result.as_ref().ok()?;
        verdicts.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let gpu = Gpu::with_options(GpuOptions {
        subgroups: !args.no_subgroups,
        ..GpuOptions::default()
    })?;
    print_device(&gpu);
    if let Some(folder) = &args.tune {
        return tune(&gpu, folder);
    }
    let warnings = driver_warnings(&gpu)?;
    let outcomes = run(jobs(&gpu, &args))?;
    println!(
        "{}",
        if args.summary {
            summary(&outcomes)
        } else {
            table(&outcomes)
        }
    );
    let failed: Vec<&Outcome> = outcomes.iter().filter(|o| !o.passed()).collect();
    for outcome in &failed {
        println!("{}", diagnosis(outcome));
    }
    for warning in &warnings {
        println!("warning: {warning}");
    }
    println!(
        "{} of {} cases right on {}",
        outcomes.len() - failed.len(),
        outcomes.len(),
        gpu.info().name
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tune(gpu: &Gpu, folder: &Path) -> Result<ExitCode> {
    let tuning = MatmulTuning::measure(gpu)?;
    println!("{tuning}\n");
    let path = tuning.save(folder, gpu)?;
    println!("saved in {}", path.display());
    println!("to use it, set PREFGRAD_TUNING={}", folder.display());
    Ok(ExitCode::SUCCESS)
}

fn print_device(gpu: &Gpu) {
    let (info, limits) = (gpu.info(), gpu.limits());
    let yes = |on: bool| if on { "yes" } else { "no" };
    let products = match gpu.matmul_tuning() {
        Some(_) => "as measured on this device",
        None => gpu.matmul_design().name(),
    };
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let rows = [
        ("adapter", info.name.clone()),
        ("driver", format!("{} {}", info.driver, info.driver_info)),
        (
            "backend, type",
            format!("{:?}, {:?}", info.backend, info.device_type),
        ),
        (
            "largest binding",
            mib(limits.max_storage_buffer_binding_size),
        ),
        ("largest buffer", mib(limits.max_buffer_size)),
        (
            "storage buffers a kernel",
            limits.max_storage_buffers_per_shader_stage.to_string(),
        ),
        (
            "workgroups a dimension",
            limits.max_compute_workgroups_per_dimension.to_string(),
        ),
        (
            "workgroup memory",
            format!("{} KiB", limits.max_compute_workgroup_storage_size >> 10),
        ),
        (
            "offset alignment",
            limits.min_storage_buffer_offset_alignment.to_string(),
        ),
        (
            "subgroups used",
            format!(
                "{} (of {} lanes or more)",
                yes(gpu.subgroups()),
                info.subgroup_min_size
            ),
        ),
        ("matrix products", products.to_string()),
        ("timestamps", yes(gpu.timestamps()).to_owned()),
    ];
    for (name, value) in rows {
        println!("{name:<26}{value}");
    }
    println!();
}

fn driver_warnings(gpu: &Gpu) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    if driver::ends_long_loops_early(gpu)? {
        warnings.push(
            "this driver leaves loops after about 65,535 iterations without an error (lavapipe of \
             Mesa 22.3 does); the kernels stay clear of such loops, but update the driver if you can"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// The cases asked for, those of matrix products once for each design that the device can run.
fn jobs(gpu: &Gpu, args: &Args) -> Vec<(Gpu, String, Case)> {
    let wanted = |case: &Case| {
        let named = args
            .kernel
            .as_ref()
            .is_none_or(|part| case.kernel.contains(part.as_str()));
        named && (args.large || case.purpose == Purpose::Answer)
    };
    let (products, others): (Vec<Case>, Vec<Case>) = cases()
        .into_iter()
        .filter(wanted)
        .partition(|case| case.kernel == PRODUCT);
    let mut jobs = Vec::new();
    for design in gpu.matmul_designs() {
        // Tiles of a long column are nearly empty: that takes a software driver minutes.
        let slow = gpu.info().device_type == wgpu::DeviceType::Cpu
            && matches!(design, MatmulDesign::Tiled(_));
        let gpu = gpu.with_matmul(design);
        let quick = |case: &&Case| !(slow && case.name.starts_with("nn 4194368x"));
        for case in products.iter().filter(quick).cloned() {
            jobs.push((gpu.clone(), format!("{PRODUCT} {design}"), case));
        }
    }
    // The bounds of the other kernels are for operands that are not rounded.
    let gpu = match gpu.matmul_design() {
        MatmulDesign::Cooperative => gpu.with_matmul(MatmulDesign::Tiled(Tiling::BySize)),
        _ => gpu.clone(),
    };
    let others = others.into_iter();
    jobs.extend(others.map(|case| (gpu.clone(), case.kernel.to_owned(), case)));
    jobs
}

fn run(jobs: Vec<(Gpu, String, Case)>) -> Result<Vec<Outcome>> {
    let bar = ProgressBar::new(jobs.len() as u64);
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {eta} left  {msg}",
    )?);
    let outcomes = jobs
        .into_iter()
        .map(|(gpu, kernel, case)| {
            bar.set_message(format!("{kernel} {}", case.name));
            let result = case.build(&gpu).and_then(|trial| trial.run());
            bar.inc(1);
            Outcome {
                kernel,
                name: case.name,
                result,
            }
        })
        .collect();
    bar.finish_and_clear();
    Ok(outcomes)
}

fn new_table(header: [&str; 5]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = new_table(["kernel", "case", "error", "bound", "pass"]);
    for outcome in outcomes {
        let (error, bound) = match outcome.worst() {
            Some(worst) => (
                format!("{:.1e}", worst.error),
                format!("{:.1e}", worst.bound),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let pass = if outcome.passed() { "yes" } else { "NO" };
        table.add_row([
            outcome.kernel.as_str(),
            outcome.name.as_str(),
            &error,
            &bound,
            pass,
        ]);
    }
    table
}

fn summary(outcomes: &[Outcome]) -> Table {
    let mut table = new_table(["kernel", "cases", "worst error", "of its bound", "pass"]);
    let mut kernels: Vec<&str> = outcomes.iter().map(|o| o.kernel.as_str()).collect();
    kernels.dedup();
    for kernel in kernels {
        let of_kernel: Vec<&Outcome> = outcomes.iter().filter(|o| o.kernel == kernel).collect();
        let worst = of_kernel
            .iter()
            .filter_map(|o| o.worst())
            .max_by(|a, b| share(a).total_cmp(&share(b)));
        let (error, share) = match worst {
            Some(w) => (
                format!("{:.1e}", w.error),
                format!("{:.0} %", 100.0 * share(w)),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let pass = if of_kernel.iter().all(|o| o.passed()) {
            "yes"
        } else {
            "NO"
        };
        table.add_row([kernel, &of_kernel.len().to_string(), &error, &share, pass]);
    }
    table
}

fn diagnosis(outcome: &Outcome) -> String {
    let case = format!("{} ({})", outcome.kernel, outcome.name);
    match (&outcome.result, outcome.worst()) {
        (Err(error), _) => format!("{case} did not run: {error}"),
        (Ok(_), Some(worst)) if worst.error.is_infinite() => format!(
            "{case}: `{}` is not finite, or the kernel wrote outside its buffers",
            worst.output
        ),
        (Ok(_), Some(worst)) => format!(
            "{case}: `{}` is off by {:.1e}, {:.0} times what is allowed: do not train with this kernel on this device",
            worst.output,
            worst.error,
            worst.error / worst.bound
        ),
        (Ok(_), None) => format!("{case} checks nothing"),
    }
}

/// The error as a share of what is allowed; an answer that must be exact has none or all of it.
fn share(verdict: &Verdict) -> f64 {
    if verdict.error == 0.0 {
        0.0
    } else {
        verdict.error / verdict.bound
    }
}
