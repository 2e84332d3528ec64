//! What the device can do at most: bytes a second, and floating-point operations a second.

use anyhow::{Result, ensure};
use prefgrad::check::values;
use prefgrad::{Binding, Capability, Const, Cost, Dispatch, Gpu, Params, Plan, Shader, Tensor};
use prefgrad::{Error, Variant};
use serde::Serialize;

use crate::timing::{Encode, median_seconds, replay, seconds_of};

const COPY: Shader = Shader::new("roofline.copy", include_str!("copy.wgsl"), Capability::Core);
const ARITHMETIC: Shader = Shader::new(
    "roofline.arithmetic",
    include_str!("arithmetic.wgsl"),
    Capability::Core,
);

/// Elements that are copied, more than caches hold: 64 MiB on a software driver, else 256 MiB where
/// a binding may have that.
fn copied_elements(gpu: &Gpu) -> usize {
    let large = 1 << 28 <= gpu.limits().max_storage_buffer_binding_size;
    match large && gpu.info().device_type != wgpu::DeviceType::Cpu {
        true => 1 << 26,
        false => 1 << 24,
    }
}

/// How many vec4 a thread copies: which is best is the device's own. To software drivers it is all one.
fn copied_fours(gpu: &Gpu) -> &'static [u32] {
    match gpu.info().device_type {
        wgpu::DeviceType::Cpu => &[4],
        _ => &[2, 4, 16],
    }
}

const THREADS: usize = 256;
/// Passes of a thread's loop; old drivers leave loops after 65,535.
const STEPS: u32 = 4096;
/// Fused multiply-adds of a chain in one pass.
const ROUNDS: u32 = 2;
/// How many chains of vec4 a thread may have: more hide latencies better, but a device with few
/// registers then keeps them in memory.
const CHAINS: [u32; 4] = [1, 2, 4, 8];
/// Both exact in f32. A chain tends to 1, and is on its way there after 2 · STEPS.
const FACTOR: f64 = 1.0 - 1.0 / 4096.0;
const SUMMAND: f64 = 1.0 / 4096.0;
/// Of a chain's end: its rounding errors add up to half a last place divided by `1 - FACTOR`.
const BOUND: f64 = 2.5e-4;
/// A dispatch of this many seconds, or of `MOST_WORKGROUPS`, fills the device.
const LONG_ENOUGH: f64 = 0.02;
const MOST_WORKGROUPS: usize = 1 << 14;

/// The device's limits, as measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Roof {
    /// GB/s that a kernel copies from buffer to buffer, read and written bytes together.
    pub copy_kernel_gb_s: f64,
    /// GB/s of the copy command, likewise.
    pub copy_command_gb_s: f64,
    /// GFLOP/s of fused multiply-adds, each two operations.
    pub arithmetic_gflop_s: f64,
    /// With how many chains of vec4 a thread.
    pub chains: u32,
}

impl Roof {
    /// How many measurements it takes.
    pub fn probes(gpu: &Gpu) -> u64 {
        (1 + copied_fours(gpu).len() + CHAINS.len()) as u64
    }

    /// Measures, `seconds` each time; `before` is told what comes.
    pub fn measure(gpu: &Gpu, seconds: f64, before: impl Fn(&str)) -> Result<Self> {
        let copied = Copied::new(gpu)?;
        let mut copy_kernel_gb_s = 0.0_f64;
        for &fours in copied_fours(gpu) {
            before(&format!("copy kernel, {fours} vec4 a thread"));
            copy_kernel_gb_s = copy_kernel_gb_s.max(copied.by_kernel(gpu, fours, seconds)?);
        }
        before("copy command");
        let copy_command_gb_s = copied.by_command(gpu, seconds)?;
        let mut best = (0.0, 0);
        for chains in CHAINS {
            before(&format!("arithmetic, {chains} chains a thread"));
            let rate = arithmetic(gpu, chains, seconds)?;
            if rate > best.0 {
                best = (rate, chains);
            }
        }
        Ok(Self {
            copy_kernel_gb_s,
            copy_command_gb_s,
            arithmetic_gflop_s: best.0,
            chains: best.1,
        })
    }

    /// The bandwidth that counts as the limit: the faster copy's.
    pub fn gb_s(&self) -> f64 {
        self.copy_kernel_gb_s.max(self.copy_command_gb_s)
    }

    /// The shortest time in seconds that the limits allow for a cost.
    pub fn seconds(&self, cost: Cost) -> f64 {
        let moving = cost.bytes as f64 / self.gb_s();
        let computing = cost.flops as f64 / self.arithmetic_gflop_s;
        moving.max(computing) / 1e9
    }
}

/// What is copied from x to y.
struct Copied {
    x: Tensor,
    y: Tensor,
    numbers: Vec<f32>,
}

impl Copied {
    fn new(gpu: &Gpu) -> Result<Self> {
        let elements = copied_elements(gpu);
        let numbers = values(1, elements, 1.0);
        Ok(Self {
            x: Tensor::from_slice(gpu, "x", &[elements], &numbers)?,
            y: Tensor::zeros::<f32>(gpu, "y", &[elements])?,
            numbers,
        })
    }

    /// Records the kernel, checks it and takes its time.
    fn by_kernel(&self, gpu: &Gpu, fours: u32, seconds: f64) -> Result<f64> {
        let mut plan = Plan::new(gpu);
        plan.push(&Dispatch {
            label: COPY.name,
            shader: &COPY,
            variant: Variant {
                entry: "copy_values",
                libs: &[],
                consts: &[("ITEMS", Const::U32(fours))],
            },
            params: Params::NONE,
            bindings: &[Binding::read(2, &self.x), Binding::write(3, &self.y)],
            workgroups: (self.x.len() / (4 * THREADS * fours as usize)) as u64,
            cost: self.cost(),
        })?;
        self.y.write(gpu, &vec![0.0_f32; self.y.len()])?;
        plan.submit();
        ensure!(
            self.y.read::<f32>(gpu)? == self.numbers,
            "the kernel that copies, copies wrong: run `doctor`"
        );
        let encode = |encoder: &mut wgpu::CommandEncoder, times| replay(&plan, encoder, times);
        self.gb_s(gpu, seconds, &encode)
    }

    fn by_command(&self, gpu: &Gpu, seconds: f64) -> Result<f64> {
        let (x, y) = (self.x.buffer(), self.y.buffer());
        self.gb_s(gpu, seconds, &|encoder, times| {
            for _ in 0..times {
                encoder.copy_buffer_to_buffer(x, 0, y, 0, self.x.bytes());
            }
            Ok(())
        })
    }

    fn cost(&self) -> Cost {
        Cost {
            flops: 0,
            bytes: self.x.bytes() + self.y.bytes(),
        }
    }

    fn gb_s(&self, gpu: &Gpu, seconds: f64, encode: Encode) -> Result<f64> {
        let taken = median_seconds(gpu, encode, seconds)?;
        Ok(self.cost().bytes as f64 / taken / 1e9)
    }
}

/// GFLOP/s with so many chains a thread, and so many workgroups that the device is full.
fn arithmetic(gpu: &Gpu, chains: u32, seconds: f64) -> Result<f64> {
    let mut workgroups = 16;
    loop {
        let (plan, sums) = multiply_adds(gpu, chains, workgroups)?;
        plan.submit();
        check_sums(&sums.read(gpu)?, chains)?;
        let encode = |encoder: &mut wgpu::CommandEncoder, times| replay(&plan, encoder, times);
        let once = seconds_of(gpu, &encode, 1, 1)?;
        if once >= LONG_ENOUGH || workgroups >= MOST_WORKGROUPS {
            let taken = median_seconds(gpu, &encode, seconds)?;
            return Ok(plan.cost().flops as f64 / taken / 1e9);
        }
        workgroups *= 4;
    }
}

fn multiply_adds(gpu: &Gpu, chains: u32, workgroups: usize) -> Result<(Plan, Tensor), Error> {
    let factors = [FACTOR as f32, SUMMAND as f32];
    let factors = Tensor::from_slice(gpu, "factors", &[2], &factors)?;
    let threads = workgroups * THREADS;
    let sums = Tensor::zeros::<f32>(gpu, "sums", &[threads])?;
    let numbers = threads as u64 * u64::from(4 * chains);
    let mut plan = Plan::new(gpu);
    plan.push(&Dispatch {
        label: ARITHMETIC.name,
        shader: &ARITHMETIC,
        variant: Variant {
            entry: "multiply_add",
            libs: &[],
            consts: &[("CHAINS", Const::U32(chains)), ("STEPS", Const::U32(STEPS))],
        },
        params: Params::NONE,
        bindings: &[Binding::read(2, &factors), Binding::write(3, &sums)],
        workgroups: workgroups as u64,
        cost: Cost {
            flops: 2 * numbers * u64::from(ROUNDS * STEPS),
            bytes: factors.bytes() + sums.bytes(),
        },
    })?;
    Ok((plan, sums))
}

/// A chain that starts at a ends at a fⁿ + s (1 - fⁿ) / (1 - f).
fn check_sums(sums: &[f32], chains: u32) -> Result<()> {
    let decay = FACTOR.powi((ROUNDS * STEPS) as i32);
    let numbers = f64::from(4 * chains);
    let mean_of_starts = 0.375 + 0.5 * f64::from(chains - 1);
    for (thread, &sum) in sums.iter().enumerate() {
        let start = mean_of_starts + (thread % THREADS) as f64 / THREADS as f64;
        let expected = numbers * (start * decay + SUMMAND * (1.0 - decay) / (1.0 - FACTOR));
        ensure!(
            (f64::from(sum) - expected).abs() <= BOUND * expected,
            "thread {thread} of the arithmetic kernel has {sum}, not {expected}: run `doctor`"
        );
    }
    Ok(())
}
