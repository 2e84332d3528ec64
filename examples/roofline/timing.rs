//! How long the device takes for something that is recorded again and again.

use std::time::Instant;

use prefgrad::{Gpu, MatmulDesign, Plan};

/// Seconds of work in one submission, about: a device works on one while the next is recorded, so the
/// first must come soon; and it may reset what runs for long.
const SUBMISSION: f64 = 0.005;
/// Of how many measurements the median is taken, where there is time for so many.
const SAMPLES: usize = 7;
const FEWEST_SAMPLES: usize = 3;
/// Replays in one measurement, at most.
const MOST_REPLAYS: u64 = 1 << 16;

/// Records the work a number of times.
pub type Encode<'a> = &'a dyn Fn(&mut wgpu::CommandEncoder, u64) -> prefgrad::Result<()>;

/// Records a plan, all times in one pass where the design of its products allows that.
pub fn replay(plan: &Plan, encoder: &mut wgpu::CommandEncoder, times: u64) -> prefgrad::Result<()> {
    if plan.gpu().matmul_design() == MatmulDesign::Staged {
        (0..times).for_each(|_| plan.commands(encoder));
        return Ok(());
    }
    let mut pass = encoder.begin_compute_pass(&Default::default());
    (0..times).try_for_each(|_| plan.encode(&mut pass))
}

/// The seconds that `times` replays take, until the device has finished, `a_submission` at once.
///
/// # Errors
///
/// A fault of the device.
pub fn seconds_of(
    gpu: &Gpu,
    encode: Encode,
    times: u64,
    a_submission: u64,
) -> prefgrad::Result<f64> {
    let started = Instant::now();
    let mut left = times;
    while left > 0 {
        let now = left.min(a_submission);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        encode(&mut encoder, now)?;
        gpu.queue().submit([encoder.finish()]);
        left -= now;
    }
    gpu.wait()?;
    Ok(started.elapsed().as_secs_f64())
}

/// The seconds of one replay: the median of several measurements, about `seconds` in all, after a
/// warm-up in which the number of replays in a measurement is found.
///
/// The warm-up of a GPU takes `seconds` as well, since it raises its clock only under load.
///
/// # Errors
///
/// A fault of the device.
pub fn median_seconds(gpu: &Gpu, encode: Encode, seconds: f64) -> prefgrad::Result<f64> {
    let (times, at_once) = warm_up(gpu, encode, seconds)?;
    let mut measured = Vec::with_capacity(SAMPLES);
    let started = Instant::now();
    while measured.len() < FEWEST_SAMPLES
        || (measured.len() < SAMPLES && started.elapsed().as_secs_f64() < seconds)
    {
        measured.push(seconds_of(gpu, encode, times, at_once)? / times as f64);
    }
    measured.sort_by(f64::total_cmp);
    Ok(measured[measured.len() / 2])
}

/// How many replays make a measurement, and how many of them a submission.
fn warm_up(gpu: &Gpu, encode: Encode, seconds: f64) -> prefgrad::Result<(u64, u64)> {
    let least = match gpu.info().device_type {
        wgpu::DeviceType::Cpu => 0.0,
        _ => seconds,
    };
    let wanted = seconds / SAMPLES as f64;
    let (mut times, mut at_once) = (1, 1);
    let started = Instant::now();
    loop {
        let taken = seconds_of(gpu, encode, times, at_once)?.max(1e-9);
        let long_enough = taken >= 0.5 * wanted || times >= MOST_REPLAYS;
        at_once = ((SUBMISSION * times as f64 / taken) as u64).max(1);
        if long_enough && started.elapsed().as_secs_f64() >= least {
            return Ok((times, at_once));
        }
        // A single replay is mostly waiting where the device is fast, so the number grows in steps.
        if !long_enough {
            let fitting = (times as f64 * wanted / taken).ceil() as u64;
            times = fitting.clamp(times + 1, 8 * times).min(MOST_REPLAYS);
        }
    }
}
