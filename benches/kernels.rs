//! Every kernel family on the device in hand, over the known-answer cases that are worth timing:
//! `cargo bench --bench kernels [-- FILTER]`, with FILTER a part of a name such as `nn.matmul`.
//!
//! Figures are wall time. A throughput is that of a plan's stated cost: floating-point operations
//! and bytes with each tensor counted once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};
use prefgrad::check::{Case, Purpose, Trial, cases};
use prefgrad::{Cost, Gpu, Plan};

/// Replays in one submission, at most: devices may reset what runs for long.
const REPLAYS: u64 = 16;

/// Wall time, with throughputs in GFLOP/s and GB/s.
struct DeviceTime;

impl Measurement for DeviceTime {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, started: Instant) -> Duration {
        WallTime.end(started)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for DeviceTime {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        // Per nanosecond is in units of 1e9 a second.
        let (amount, unit) = match throughput {
            Throughput::Elements(flops) => (*flops, "GFLOP/s"),
            Throughput::BytesDecimal(bytes) | Throughput::Bytes(bytes) => (*bytes, "GB/s"),
            _ => {
                return WallTime
                    .formatter()
                    .scale_throughputs(typical, throughput, values);
            }
        };
        for value in values {
            *value = amount as f64 / *value;
        }
        unit
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}

fn throughput(cost: Cost) -> Throughput {
    match cost.flops {
        0 => Throughput::BytesDecimal(cost.bytes),
        flops => Throughput::ElementsAndBytes {
            elements: flops,
            bytes: cost.bytes,
        },
    }
}

/// Replays a plan `times` times and waits.
fn replay(gpu: &Gpu, plan: &Plan, times: u64) -> prefgrad::Result<()> {
    let mut left = times;
    while left > 0 {
        let now = left.min(REPLAYS);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for _ in 0..now {
            plan.commands(&mut encoder);
        }
        gpu.queue().submit([encoder.finish()]);
        left -= now;
    }
    gpu.wait()
}

/// Builds a case and makes sure that it is worth timing: its answers are right.
fn prepare(gpu: &Gpu, case: &Case) -> Result<Trial> {
    let trial = case.build(gpu)?;
    for verdict in trial.run()? {
        ensure!(verdict.passed(), "wrong answer: {verdict:?}");
    }
    Ok(trial)
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    println!("{} ({:?})", gpu.variants(), gpu.info().device_type);
    let mut criterion = Criterion::default()
        .with_measurement(DeviceTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut all: Vec<Case> = cases()
        .into_iter()
        .filter(|case| case.purpose == Purpose::Timing)
        .collect();
    all.sort_by_key(|case| case.kernel);
    for family in all.chunk_by(|a, b| a.kernel == b.kernel) {
        let Some(kernel) = family.first().map(|case| case.kernel) else {
            continue;
        };
        let mut group = criterion.benchmark_group(kernel);
        for case in family {
            bench(&gpu, &mut group, case).with_context(|| format!("{kernel} {}", case.name))?;
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

type Group<'a> = criterion::BenchmarkGroup<'a, DeviceTime>;

fn bench(gpu: &Gpu, group: &mut Group<'_>, case: &Case) -> Result<()> {
    let trial = prepare(gpu, case)?;
    let mut outcome = Ok(());
    group.throughput(throughput(trial.plan.cost()));
    group.bench_function(&case.name, |bencher| {
        bencher.iter_custom(|times| {
            let started = Instant::now();
            if let Err(error) = replay(gpu, &trial.plan, times) {
                outcome = Err(error);
            }
            started.elapsed()
        });
    });
    Ok(outcome?)
}
