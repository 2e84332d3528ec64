//! [`MatmulTuning::measure`]: the designs of matrix product timed against each other, by wall clock.

use std::time::{Duration, Instant};

use super::matmul::{Layout, MatmulIo, MatmulSizes, matmul};
use crate::Result;
use crate::gpu::{Gpu, MatmulDesign, MatmulTuning, Plan, ProductClass, Tensor, TuningRow};
use crate::kernels::Size;

/// When this has passed, no other class is begun.
const BUDGET: Duration = Duration::from_secs(2);
/// Each product is repeated until this has passed, but at most this often.
const EACH: Duration = Duration::from_millis(10);
const REPEATS: u32 = 20;

/// A product of each class, smaller ones first: rows, columns and length of a dot product.
const SIZES: [(usize, usize, usize); 3] = [(256, 512, 512), (768, 1024, 512), (2048, 2048, 512)];
const LAYOUTS: [Layout; 3] = [Layout::Nn, Layout::Nt, Layout::Tn];

impl MatmulTuning {
    /// Times the designs that this device can run on products of every class, for about two seconds:
    /// on a device that is too slow for that, the larger classes are left out, and keep the design
    /// that the device has by default. Compilation comes on top.
    ///
    /// Wall-clock time of whole submissions: let nothing else run on the device meanwhile.
    ///
    /// # Errors
    ///
    /// What the device refuses or reports.
    pub fn measure(gpu: &Gpu) -> Result<Self> {
        let started = Instant::now();
        let designs = gpu.matmul_designs_to_tune();
        let mut rows: Vec<TuningRow> = Vec::new();
        for (size, layout) in SIZES.iter().flat_map(|size| LAYOUTS.map(|l| (*size, l))) {
            let left = BUDGET.saturating_sub(started.elapsed()).as_secs_f64();
            if expected_seconds(&rows, size) >= left {
                break;
            }
            for &design in &designs {
                rows.push(row(&gpu.with_matmul(design), design, layout, size)?);
            }
        }
        Ok(Self::new(gpu, rows))
    }
}

/// What three runs of every design take, judged by its rate on the product before.
fn expected_seconds(rows: &[TuningRow], size: (usize, usize, usize)) -> f64 {
    let last = rows.last().map(|row| row.class);
    let before = rows.iter().filter(|row| Some(row.class) == last);
    let each = before.map(|row| 3.0 * flops(size) / row.gflops / 1e9);
    each.sum()
}

fn flops((m, n, k): (usize, usize, usize)) -> f64 {
    2.0 * (m * n * k) as f64
}

fn row(
    gpu: &Gpu,
    design: MatmulDesign,
    layout: Layout,
    (m, n, k): (usize, usize, usize),
) -> Result<TuningRow> {
    let (transpose_a, transpose_b) = (layout == Layout::Tn, layout == Layout::Nt);
    let a_shape = if transpose_a { [k, m] } else { [m, k] };
    let b_shape = if transpose_b { [n, k] } else { [k, n] };
    let a = Tensor::zeros::<f32>(gpu, "a", &a_shape)?;
    let b = Tensor::zeros::<f32>(gpu, "b", &b_shape)?;
    let out = Tensor::zeros::<f32>(gpu, "out", &[m, n])?;
    let io = MatmulIo::whole(&a, &b, &out);
    let sizes = MatmulSizes {
        layout,
        m: Size::fixed(m),
        n,
        k: Size::fixed(k),
    };
    let mut plan = Plan::new(gpu);
    matmul(&mut plan, &io, &sizes)?;
    // The first run of a plan includes the driver's compilation.
    seconds(&plan, 1)?;
    let once = seconds(&plan, 1)?;
    let repeats = (EACH.as_secs_f64() / once).clamp(1.0, f64::from(REPEATS)) as u32;
    let best = once.min(seconds(&plan, repeats)?);
    Ok(TuningRow {
        class: ProductClass::of(transpose_a, transpose_b, m, n),
        design,
        gflops: flops((m, n, k)) / best / 1e9,
    })
}

/// Seconds of one run, as the mean of `repeats` in one submission.
fn seconds(plan: &Plan, repeats: u32) -> Result<f64> {
    let started = Instant::now();
    let plans: Vec<&Plan> = (0..repeats).map(|_| plan).collect();
    crate::gpu::submit_together(&plans);
    plan.gpu().wait()?;
    Ok(started.elapsed().as_secs_f64().max(1e-9) / f64::from(repeats))
}
