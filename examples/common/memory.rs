//! What a run will take of the device's memory, said and checked before it is taken.

use anyhow::{Result, bail};
use prefgrad::{Gpu, MemoryPlan};

/// Prints what `make` allocates, and refuses what exceeds the device or `budget`, in GiB.
///
/// `make` gets a device that only counts: see [`MemoryPlan::of`].
///
/// # Errors
///
/// What `make` refuses, and a plan that is too large.
pub fn plan_memory(
    gpu: &Gpu,
    budget: Option<f64>,
    make: impl FnOnce(&Gpu) -> Result<()>,
) -> Result<()> {
    let bytes = match budget {
        None => None,
        Some(gib) if gib.is_finite() && gib > 0.0 => Some((gib * f64::from(1 << 30)) as u64),
        Some(gib) => bail!("--memory is {gib}: it must be a number of GiB above 0"),
    };
    let plan = MemoryPlan::of(gpu, make)?;
    println!("memory     {plan}");
    Ok(plan.check(gpu, bytes)?)
}
