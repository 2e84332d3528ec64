//! [`MemoryPlan`]: what a run will allocate, counted before anything is allocated.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use super::Gpu;
use super::device::lock;
use crate::{Error, Result};

/// What memory on the device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryUse {
    /// Parameters.
    Weights,
    /// Gradients of parameters.
    Gradients,
    /// First and second moments.
    Optimizer,
    /// What a forward pass keeps for the backward pass.
    Activations,
    /// Keys and values of sequences that are being generated.
    Cache,
    /// Batches, logits, metrics and what the backward pass overwrites layer by layer.
    Workspace,
}

impl MemoryUse {
    /// All uses, in the order in which a plan lists them.
    pub const ALL: [Self; 6] = [
        Self::Weights,
        Self::Gradients,
        Self::Optimizer,
        Self::Activations,
        Self::Cache,
        Self::Workspace,
    ];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimiser",
            Self::Activations => "activations",
            Self::Cache => "cache",
            Self::Workspace => "workspace",
        }
    }
}

/// What is counted in place of allocated.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    plan: MemoryPlan,
    /// Textures that all plans of a device share, by place among a dispatch's operands and by rows.
    textures: HashSet<(u32, u32)>,
}

impl Ledger {
    pub fn count(&self, purpose: MemoryUse, bytes: u64) {
        lock(&self.0).plan.bytes[purpose as usize] += bytes;
    }

    pub fn count_texture(&self, key: (u32, u32), bytes: u64) {
        if lock(&self.0).textures.insert(key) {
            self.count(MemoryUse::Workspace, bytes);
        }
    }
}

/// What a run allocates on the device, by use.
///
/// [`MemoryPlan::of`] runs the very code that allocates, on a [`Gpu`] that only counts: the plan
/// knows every tensor, and costs no more than a moment. Not in it are the driver's own needs, and
/// the host memory that wgpu stages uploads in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    bytes: [u64; MemoryUse::ALL.len()],
}

impl MemoryPlan {
    /// What `make` allocates on the device that it is given, which only counts: nothing reaches
    /// the real device, plans stay empty, and reading a tensor is an error.
    ///
    /// # Errors
    ///
    /// What `make` returns: what exceeds one of the device's limits is refused as it would be.
    pub fn of<E>(
        gpu: &Gpu,
        make: impl FnOnce(&Gpu) -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let ledger = Ledger::default();
        make(&gpu.counting(ledger.clone()))?;
        let plan = lock(&ledger.0).plan.clone();
        Ok(plan)
    }

    /// The bytes of one use.
    pub fn bytes(&self, purpose: MemoryUse) -> u64 {
        self.bytes[purpose as usize]
    }

    /// The bytes of all uses.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// Refuses a plan that exceeds the device's memory, as far as that is known, or `budget`
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] says how much is needed for what.
    pub fn check(&self, gpu: &Gpu, budget: Option<u64>) -> Result<()> {
        let budgets = [
            ("the budget", budget),
            ("the device's memory", gpu.memory_bytes()),
        ];
        for (what, limit) in budgets {
            if let Some(limit) = limit.filter(|limit| self.total() > *limit) {
                return Err(Error::Memory {
                    needed: size(self.total()),
                    limit: format!("{what} of {}", size(limit)),
                    plan: self.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Display for MemoryPlan {
    /// `weights 513.1 MiB, gradients ..., in all 2.1 GiB`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for purpose in MemoryUse::ALL {
            let bytes = self.bytes(purpose);
            if bytes > 0 {
                write!(f, "{} {}, ", purpose.name(), size(bytes))?;
            }
        }
        write!(f, "in all {}", size(self.total()))
    }
}

/// Bytes for a person to read.
fn size(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match bytes {
        0..0x100_0000 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        0x100_0000..0x4000_0000 => format!("{mib:.1} MiB"),
        _ => format!("{:.2} GiB", mib / 1024.0),
    }
}
