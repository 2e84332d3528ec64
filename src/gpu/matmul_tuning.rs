//! [`MatmulTuning`]: which design of matrix product was fastest on a device, remembered on disk.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Gpu, MatmulDesign};
use crate::files::{io_error, write_atomically};
use crate::{Error, Result};

/// Products that one design serves: they differ in what decides which design is fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductClass {
    /// Whether the left operand is stored transposed.
    pub transpose_a: bool,
    /// Whether the right operand is stored transposed.
    pub transpose_b: bool,
    /// How many outputs there are.
    pub outputs: Outputs,
}

/// How many outputs a product has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outputs {
    /// Below 2^19: the default for GPUs is small tiles.
    Few,
    /// Below 2^21: medium tiles.
    Some,
    /// 2^21 or more: large tiles.
    Many,
}

impl ProductClass {
    /// The class of a product with a result of `m` by `n`.
    pub fn of(transpose_a: bool, transpose_b: bool, m: usize, n: usize) -> Self {
        let outputs = match m.saturating_mul(n) {
            0..0x8_0000 => Outputs::Few,
            0x8_0000..0x20_0000 => Outputs::Some,
            _ => Outputs::Many,
        };
        Self {
            transpose_a,
            transpose_b,
            outputs,
        }
    }
}

impl fmt::Display for ProductClass {
    /// `nt, few outputs`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |transposed| if transposed { 't' } else { 'n' };
        let outputs = match self.outputs {
            Outputs::Few => "few",
            Outputs::Some => "some",
            Outputs::Many => "many",
        };
        let (a, b) = (letter(self.transpose_a), letter(self.transpose_b));
        f.pad(&format!("{a}{b}, {outputs} outputs"))
    }
}

/// What one design reached on products of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningRow {
    /// The class.
    pub class: ProductClass,
    /// The design.
    pub design: MatmulDesign,
    /// 10^9 floating-point operations a second, from submission to result.
    pub gflops: f64,
}

/// Which design of matrix product was fastest on a device. Prints as a table.
///
/// Only speed depends on it, and the last bits of results. [`MatmulTuning::measure`] makes one,
/// [`Gpu::with_tuning`] uses it; what was measured on another device, driver or version of the
/// crate is not taken from disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatmulTuning {
    adapter: String,
    driver: String,
    version: String,
    rows: Vec<TuningRow>,
}

impl MatmulTuning {
    /// A table for this device. Of designs with the same rate, the first one counts.
    pub fn new(gpu: &Gpu, rows: Vec<TuningRow>) -> Self {
        let info = gpu.info();
        Self {
            adapter: format!("{} ({:?})", info.name, info.backend),
            driver: format!("{} {}", info.driver, info.driver_info),
            version: env!("CARGO_PKG_VERSION").into(),
            rows,
        }
    }

    /// What was measured.
    pub fn rows(&self) -> &[TuningRow] {
        &self.rows
    }

    /// Whether it was measured on this device with this driver by this version of the crate.
    pub fn fits(&self, gpu: &Gpu) -> bool {
        let own = Self::new(gpu, Vec::new());
        (&self.adapter, &self.driver, &self.version) == (&own.adapter, &own.driver, &own.version)
    }

    /// The file of this device's table in `folder`.
    pub fn path(folder: &Path, gpu: &Gpu) -> PathBuf {
        let name = Self::new(gpu, Vec::new()).adapter.to_lowercase();
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        folder.join(format!("matmul-{name}.json"))
    }

    /// This device's table in `folder`: `None` where there is none, or one of another driver or
    /// version.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a file that is damaged, [`Error::Io`].
    pub fn load(folder: &Path, gpu: &Gpu) -> Result<Option<Self>> {
        let path = Self::path(folder, gpu);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("cannot read", &path)(error)),
        };
        let damaged = |detail: String| Error::Data {
            place: path.display().to_string(),
            detail: format!("{detail}: delete it and measure again"),
        };
        let tuning: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if let Some(row) = tuning.rows.iter().find(|row| row.gflops <= 0.0) {
            return Err(damaged(format!("{} at {} GFLOP/s", row.design, row.gflops)));
        }
        Ok(Some(tuning).filter(|tuning| tuning.fits(gpu)))
    }

    /// The table in the folder that `PREFGRAD_TUNING` names.
    pub(super) fn from_env(gpu: &Gpu) -> Option<Self> {
        let folder = std::env::var_os("PREFGRAD_TUNING")?;
        match Self::load(Path::new(&folder), gpu) {
            Ok(tuning) => tuning,
            Err(error) => {
                log::warn!("PREFGRAD_TUNING: {error}");
                None
            }
        }
    }

    /// Writes the table into `folder`, which is made where it does not exist, and says where.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, folder: &Path, gpu: &Gpu) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).map_err(io_error("cannot make", folder))?;
        let path = Self::path(folder, gpu);
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::Data {
            place: path.display().to_string(),
            detail: error.to_string(),
        })?;
        write_atomically(&path, &text)?;
        Ok(path)
    }

    /// The fastest design for a class among those that `can_run` allows, where any was measured.
    pub fn fastest(
        &self,
        class: ProductClass,
        can_run: impl Fn(MatmulDesign) -> bool,
    ) -> Option<MatmulDesign> {
        let mut best: Option<&TuningRow> = None;
        for row in self.rows.iter().filter(|row| row.class == class) {
            if can_run(row.design) && best.is_none_or(|best| row.gflops > best.gflops) {
                best = Some(row);
            }
        }
        best.map(|row| row.design)
    }

    /// The classes that were measured, in the order of the rows.
    fn classes(&self) -> Vec<ProductClass> {
        let mut classes: Vec<ProductClass> = self.rows.iter().map(|row| row.class).collect();
        classes.dedup();
        classes
    }

    /// The choices alone, as in `nn, few outputs: tiled-small; ...`.
    pub(super) fn summary(&self) -> String {
        let choices: Vec<String> = self
            .classes()
            .into_iter()
            .filter_map(|class| Some((class, self.fastest(class, |_| true)?)))
            .map(|(class, design)| format!("{class}: {design}"))
            .collect();
        choices.join("; ")
    }
}

impl fmt::Display for MatmulTuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20} {:<14} {:>10}", "product", "design", "GFLOP/s")?;
        for row in &self.rows {
            let chosen = self.fastest(row.class, |_| true) == Some(row.design);
            let mark = if chosen { "  fastest" } else { "" };
            let TuningRow {
                class,
                design,
                gflops,
            } = row;
            write!(f, "\n{class:<20} {design:<14} {gflops:>10.1}{mark}")?;
        }
        Ok(())
    }
}
