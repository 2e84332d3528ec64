//! One kernel of the crate inside a host application: its device, its encoder, its pass.

mod host;

use anyhow::Result;
use clap::Parser;
use prefgrad::data::Pair;
use prefgrad::kernels::preference::pairwise_loss::{
    PairwiseLossIo, PairwiseLossOptions, pairwise_loss,
};
use prefgrad::{Gpu, GpuOptions, Plan, Tensor};

use host::{FEATURES, Host};

/// An application with a wgpu device and a linear reward model of its own borrows one kernel, the
/// pairwise loss, and records it into its own compute pass between its own dispatches.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Print the complete WGSL text of the borrowed kernel, for any other engine.
    #[arg(long)]
    wgsl: bool,
    /// Updates of the host's reward model.
    #[arg(long, default_value_t = 300)]
    steps: usize,
}

/// What the comparisons follow; the host's model has to find these weights.
const HIDDEN: [f32; FEATURES] = [1.5, -1.0, 0.5, 0.0];
const PAIRS: usize = 512;

fn main() -> Result<()> {
    let args = Args::parse();
    // The host owns the device: WebGPU's default limits, no features.
    let host = pollster::block_on(Host::new(&features()))?;

    // The crate works on the host's device and buffers. Recording makes pipeline and bind group.
    let gpu = Gpu::from_device(
        host.device.clone(),
        host.queue.clone(),
        GpuOptions::default(),
    );
    let rewards = Tensor::from_buffer::<f32>("rewards", host.rewards.clone(), 0, &[2 * PAIRS])?;
    let drewards = Tensor::from_buffer::<f32>("d rewards", host.drewards.clone(), 0, &[2 * PAIRS])?;
    let one = Pair {
        weight: 1.0,
        margin: 0.0,
    };
    let pairs = Tensor::from_slice(&gpu, "pairs", &[PAIRS], &[one; PAIRS])?;
    let losses = Tensor::zeros::<f32>(&gpu, "losses", &[PAIRS])?;
    let mut plan = Plan::new(&gpu);
    pairwise_loss(
        &mut plan,
        &PairwiseLossIo {
            rewards: &rewards,
            pairs: &pairs,
            losses: &losses,
            drewards: &drewards,
            counts: None,
        },
        &PairwiseLossOptions {
            pair_scale: 1.0 / PAIRS as f32,
            ..PairwiseLossOptions::default()
        },
    )?;
    if args.wgsl {
        for shader in gpu.compiled() {
            println!("{}", shader.wgsl);
        }
        return Ok(());
    }

    // The host's own encoder and pass, its own dispatches before and after.
    let mut encoder = host.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..args.steps {
            host.forward(&mut pass);
            plan.encode(&mut pass)?;
            host.update(&mut pass);
        }
    }
    host.queue.submit([encoder.finish()]);

    let found = host.read_weights()?;
    let mean_loss = losses.read::<f32>(&gpu)?.iter().sum::<f32>() / PAIRS as f32;
    println!(
        "loss after {} updates: {mean_loss:.4} (0.6931 is guessing)",
        args.steps
    );
    println!("feature   hidden    found (in proportion)");
    let scale = HIDDEN[0] / found[0];
    for (index, (hidden, found)) in HIDDEN.iter().zip(found).enumerate() {
        println!("{index:>7} {hidden:>8.2} {:>8.2}", found * scale);
    }
    Ok(())
}

/// Features of 2 · PAIRS answers; of each pair the better one by the hidden weights comes first.
fn features() -> Vec<f32> {
    let mut random = prefgrad::data::Random::new(1, 0);
    let mut all = Vec::new();
    for _ in 0..PAIRS {
        let mut answer = || -> [f32; FEATURES] { std::array::from_fn(|_| random.normal()) };
        let (a, b) = (answer(), answer());
        let utility = |x: &[f32; FEATURES]| x.iter().zip(HIDDEN).map(|(x, w)| x * w).sum::<f32>();
        let (better, worse) = if utility(&a) > utility(&b) {
            (a, b)
        } else {
            (b, a)
        };
        all.extend(better);
        all.extend(worse);
    }
    all
}
