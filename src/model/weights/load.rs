//! Weights from files to a device.

use std::collections::HashMap;
use std::path::Path;

use super::tensor::StoredTensor;
use super::{HEADS, WeightFiles, refused};
use crate::Result;
use crate::gpu::Gpu;
use crate::model::{ParameterSpec, Parameters};

/// Bytes that are written before the device is waited for.
const BATCH: usize = 64 << 20;

/// Tensors of old files that hold no weights: GPT-2's causal mask, and frequencies of rotary
/// positions, which follow from the configuration.
fn holds_no_weights(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Fills the parameters from the weight files of a folder: `model.safetensors`, or the files that
/// `model.safetensors.index.json` names, in f32, f16 or bf16; a value head from
/// `value_head.safetensors`, where there is such a file, as [`save_language_model`] writes it.
///
/// The names may lack their first part, `transformer.` or `model.` (a model without its head). A
/// head that only the files have is passed over; one that only the model has keeps its starting
/// value, and `false` is returned for it.
///
/// As [`WeightFiles::load`], it waits for the device.
///
/// # Errors
///
/// As [`WeightFiles::open`] and [`WeightFiles::load`].
///
/// [`save_language_model`]: super::save_language_model
pub fn load_weights(gpu: &Gpu, parameters: &Parameters, folder: &Path) -> Result<bool> {
    WeightFiles::open(folder)?.load(gpu, parameters)
}

impl WeightFiles {
    /// The tensor of each parameter, `None` for a head that the files lack.
    ///
    /// # Errors
    ///
    /// [`Error::Model`](crate::Error::Model) names a tensor that is missing, unknown, there twice,
    /// of another shape, or of a type that is not read.
    pub fn assign(&self, specs: &[ParameterSpec]) -> Result<Vec<Option<StoredTensor<'_>>>> {
        let mut found = self.by_parameter(specs)?;
        let mut assigned = Vec::with_capacity(specs.len());
        let mut missing = Vec::new();
        for spec in specs {
            let tensor = found.remove(&spec.name);
            match &tensor {
                Some(tensor) => check(tensor, spec)?,
                None if is_head(&spec.name) => {}
                None => missing.push(&spec.name),
            }
            assigned.push(tensor);
        }
        if let Some(name) = missing.first() {
            let others = match missing.len() {
                1 => String::new(),
                n => format!(" and {} others", n - 1),
            };
            return Err(refused(
                self.place(),
                format!("it has no tensor `{name}`{others}: {MISFIT}"),
            ));
        }
        let unknown = found.into_values().filter(|tensor| !is_head(tensor.name));
        match unknown.min_by_key(|tensor| tensor.name) {
            None => Ok(assigned),
            Some(tensor) => Err(refused(
                tensor.file,
                format!("`{}` is no parameter of this model: {MISFIT}", tensor.name),
            )),
        }
    }

    /// The tensors that hold weights, under the names that parameters have.
    fn by_parameter(&self, specs: &[ParameterSpec]) -> Result<HashMap<String, StoredTensor<'_>>> {
        let prefix = specs
            .iter()
            .filter(|spec| !is_head(&spec.name))
            .find_map(|spec| spec.name.find('.').map(|at| &spec.name[..=at]))
            .unwrap_or_default();
        let mut found: HashMap<String, StoredTensor<'_>> = HashMap::new();
        for tensor in self.tensors().filter(|t| !holds_no_weights(t.name)) {
            let full = match is_head(tensor.name) || tensor.name.starts_with(prefix) {
                true => tensor.name.to_owned(),
                false => format!("{prefix}{}", tensor.name),
            };
            if let Some(other) = found.insert(full, tensor) {
                return Err(refused(
                    tensor.file,
                    format!("`{}` and `{}` are the same", other.name, tensor.name),
                ));
            }
        }
        Ok(found)
    }

    /// Fills the parameters, as [`load_weights`] does.
    ///
    /// Nothing is written before every name, shape and type has been checked. Tensors go to the
    /// device one at a time and in small pieces; after every 64 MiB it submits and waits until the
    /// device has them, so that no second copy of the weights piles up in memory. In a browser,
    /// where waiting is not possible, it only submits.
    ///
    /// # Errors
    ///
    /// As [`WeightFiles::assign`], and what waiting for the device reports.
    pub fn load(&self, gpu: &Gpu, parameters: &Parameters) -> Result<bool> {
        let specs = parameters.specs();
        let assigned = self.assign(specs)?;
        let whole = assigned.iter().all(Option::is_some);
        // Where memory is only planned there is nothing to fill.
        if gpu.counts_only() {
            return Ok(whole);
        }
        let mut waiting = 0;
        for (spec, tensor) in specs.iter().zip(assigned) {
            let Some(tensor) = tensor else {
                continue;
            };
            tensor.pieces(|first, values| {
                parameters.write_range(gpu, &spec.name, first, values)?;
                waiting += size_of_val(values);
                if waiting >= BATCH {
                    waiting = 0;
                    self.hand_over(gpu)?;
                }
                Ok(())
            })?;
        }
        self.hand_over(gpu)?;
        Ok(whole)
    }

    /// Waits for what was written, which frees its copies on the way to the device.
    fn hand_over(&self, gpu: &Gpu) -> Result<()> {
        gpu.flush_writes()?;
        self.release();
        Ok(())
    }
}

const MISFIT: &str = "config.json and the weights are not of one model";

fn is_head(name: &str) -> bool {
    HEADS.contains(&name)
}

fn check(tensor: &StoredTensor<'_>, spec: &ParameterSpec) -> Result<()> {
    if tensor.shape != spec.shape {
        return Err(refused(
            tensor.file,
            format!(
                "`{}` is {:?}, the configuration asks for {:?}",
                tensor.name, tensor.shape, spec.shape
            ),
        ));
    }
    match tensor.is_readable() {
        true => Ok(()),
        false => Err(tensor.unreadable()),
    }
}
