//! [`Parameters`]: a model's weights, gradients and moments in few large buffers.

mod place;

use std::collections::HashMap;

use self::place::{Slice, blocks, len, place, slices};
use super::Purpose;
use super::specs::{Init, ParameterSpec};
use crate::data::Random;
use crate::gpu::{Gpu, MemoryUse, Tensor};
use crate::{Error, Result};

/// Elements that every tensor starts at a multiple of: 256 bytes, the largest offset alignment
/// that a device may ask for.
const ALIGN: usize = 64;

/// One buffer's worth of parameters: what a single dispatch of the optimiser updates.
pub struct Chunk {
    /// Weights.
    pub weights: Tensor,
    /// Gradients; the backward pass adds, the optimiser zeroes. Empty, as the moments, where the
    /// parameters are not to be trained.
    pub gradients: Tensor,
    /// First moments.
    pub m: Tensor,
    /// Second moments.
    pub v: Tensor,
    /// The first elements, which weight decay applies to.
    pub decayed: usize,
}

/// Consecutive rows of a parameter that lie in one buffer.
#[derive(Clone)]
pub struct Window {
    /// The first row.
    pub first_row: usize,
    /// Weights, of shape (rows, ...).
    pub weight: Tensor,
    /// Gradients; empty where the parameter is not to be trained.
    pub gradient: Tensor,
}

/// A model's weights, gradients and moments.
pub struct Parameters {
    specs: Vec<ParameterSpec>,
    /// By the names that kernels use: stacks in place of what they consist of.
    windows: HashMap<String, Vec<Window>>,
    /// By the names that files use.
    slices: HashMap<String, Vec<Slice>>,
    chunks: Vec<Chunk>,
}

impl Parameters {
    /// Allocates weights, all zero, and to train gradients and moments as well.
    ///
    /// Parameters with weight decay come first in each buffer, so that one number tells the
    /// optimiser where decay ends. A matrix over the device's binding limit is split by rows.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where a single row exceeds a binding, [`Error::OutOfMemory`].
    pub fn allocate(gpu: &Gpu, specs: Vec<ParameterSpec>, purpose: Purpose) -> Result<Self> {
        let limits = gpu.limits();
        let bytes = limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size);
        let capacity = (bytes / 4) as usize / ALIGN * ALIGN;
        let blocks = blocks(&specs);
        let (placements, plans) = place(&blocks, capacity)?;
        let mut chunks = Vec::with_capacity(plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let tensor = |what: &str, purpose: MemoryUse, len: usize| {
                let label = format!("parameters {index}: {what}");
                Tensor::zeros::<f32>(&gpu.for_use(purpose), &label, &[len])
            };
            let trained = match purpose {
                Purpose::Score => 0,
                Purpose::Train => plan.len,
            };
            chunks.push(Chunk {
                weights: tensor("weights", MemoryUse::Weights, plan.len)?,
                gradients: tensor("gradients", MemoryUse::Gradients, trained)?,
                m: tensor("first moments", MemoryUse::Optimizer, trained)?,
                v: tensor("second moments", MemoryUse::Optimizer, trained)?,
                decayed: plan.decayed,
            });
        }
        let mut windows: HashMap<String, Vec<Window>> = HashMap::new();
        for placement in &placements {
            let block = &blocks[placement.block];
            let mut shape = block.shape.clone();
            shape[0] = placement.rows;
            let chunk = &chunks[placement.chunk];
            let label = format!("d {}", block.name);
            let gradient = match purpose {
                Purpose::Score => chunk.gradients.clone(),
                Purpose::Train => chunk.gradients.window(&label, placement.start, &shape)?,
            };
            windows.entry(block.name.clone()).or_default().push(Window {
                first_row: placement.first_row,
                weight: chunk.weights.window(&block.name, placement.start, &shape)?,
                gradient,
            });
        }
        Ok(Self {
            slices: slices(&specs, &blocks, &placements),
            specs,
            windows,
            chunks,
        })
    }

    /// Names, shapes and treatment of all parameters.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The buffers.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The number of trained values.
    pub fn count(&self) -> usize {
        self.specs.iter().map(|spec| len(&spec.shape)).sum()
    }

    /// The windows of a parameter, by row; of stacked ones under the name of the stack.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if there is no such parameter.
    pub fn windows(&self, name: &str) -> Result<&[Window]> {
        self.windows
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| unknown(name))
    }

    /// A parameter that lies in one buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if there is no such parameter, [`Error::Limit`] if it was split.
    pub fn whole(&self, name: &str) -> Result<&Window> {
        match self.windows(name)? {
            [window] => Ok(window),
            windows => Err(Error::Limit {
                what: name.into(),
                needed: windows.iter().map(|w| w.weight.bytes()).sum(),
                limit_name: "maxStorageBufferBindingSize",
                limit: windows.iter().map(|w| w.weight.bytes()).max().unwrap_or(0),
                hint: "only token tables may be larger than one binding: use a narrower model",
            }),
        }
    }

    /// Gives every parameter its starting value, the same for a seed on every machine.
    ///
    /// # Errors
    ///
    /// What writing a tensor refuses.
    pub fn initialise(&self, gpu: &Gpu, seed: u64) -> Result<()> {
        if gpu.counts_only() {
            return Ok(());
        }
        for (index, spec) in self.specs.iter().enumerate() {
            let count = len(&spec.shape);
            let values = match spec.init {
                Init::Zeros => vec![0.0; count],
                Init::Ones => vec![1.0; count],
                Init::Normal(deviation) => {
                    let mut values = Random::new(seed, index as u64).normals(count);
                    values.iter_mut().for_each(|value| *value *= deviation);
                    values
                }
            };
            self.write(gpu, &spec.name, &values)?;
        }
        Ok(())
    }

    /// Sets a parameter's values.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for an unknown name or another number of values.
    pub fn write(&self, gpu: &Gpu, name: &str, values: &[f32]) -> Result<()> {
        self.write_kind(gpu, name, |chunk| &chunk.weights, values)
    }

    /// Sets a parameter's values in one kind of tensor: weights, gradients or a moment.
    ///
    /// # Errors
    ///
    /// As [`Parameters::write`].
    pub fn write_kind(
        &self,
        gpu: &Gpu,
        name: &str,
        kind: impl Fn(&Chunk) -> &Tensor,
        values: &[f32],
    ) -> Result<()> {
        for (slice, values) in self.by_slice(name, values)? {
            kind(&self.chunks[slice.chunk])
                .window(name, slice.start, &[slice.len])?
                .write(gpu, values)?;
        }
        Ok(())
    }

    /// Sets some of a parameter's values: those from element `first` on.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for an unknown name or values past the parameter's end.
    pub fn write_range(&self, gpu: &Gpu, name: &str, first: usize, values: &[f32]) -> Result<()> {
        let slices = self.slices.get(name).ok_or_else(|| unknown(name))?;
        let len: usize = slices.iter().map(|slice| slice.len).sum();
        if first.saturating_add(values.len()) > len {
            return Err(Error::Model {
                place: name.into(),
                detail: format!("{} values from {first} on, it has {len}", values.len()),
            });
        }
        for (slice, values) in spread(slices, first, values) {
            self.chunks[slice.chunk]
                .weights
                .window(name, slice.start, &[slice.len])?
                .write(gpu, values)?;
        }
        Ok(())
    }

    /// A parameter's values in whole buffers, one `Vec` a chunk, in as many pieces as it has.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for an unknown name.
    pub fn pieces<'a>(&self, name: &str, buffers: &'a [Vec<f32>]) -> Result<Vec<&'a [f32]>> {
        let slices = self.slices.get(name).ok_or_else(|| unknown(name))?;
        let piece = |slice: &Slice| &buffers[slice.chunk][slice.start..slice.start + slice.len];
        Ok(slices.iter().map(piece).collect())
    }

    /// Puts a parameter's values to their place in whole buffers, one `Vec` a chunk.
    ///
    /// # Errors
    ///
    /// As [`Parameters::write`].
    pub fn place(&self, name: &str, values: &[f32], buffers: &mut [Vec<f32>]) -> Result<()> {
        for (slice, values) in self.by_slice(name, values)? {
            buffers[slice.chunk][slice.start..slice.start + slice.len].copy_from_slice(values);
        }
        Ok(())
    }

    fn by_slice<'a>(&self, name: &str, values: &'a [f32]) -> Result<Vec<(Slice, &'a [f32])>> {
        let slices = self.slices.get(name).ok_or_else(|| unknown(name))?;
        let expected: usize = slices.iter().map(|slice| slice.len).sum();
        if values.len() != expected {
            return Err(Error::Model {
                place: name.into(),
                detail: format!("{} values, the model has {expected}", values.len()),
            });
        }
        Ok(spread(slices, 0, values))
    }

    /// Sets the whole of every chunk's weights, one `Vec` a chunk, as [`Parameters::read`] gave
    /// them.
    ///
    /// # Errors
    ///
    /// As [`Tensor::write`].
    pub fn write_all(&self, gpu: &Gpu, buffers: &[Vec<f32>]) -> Result<()> {
        for (chunk, values) in self.chunks.iter().zip(buffers) {
            chunk.weights.write(gpu, values)?;
        }
        Ok(())
    }

    /// Takes the weights of parameters of the same shapes, on the device.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if the shapes differ.
    pub fn copy_from(&self, gpu: &Gpu, other: &Self) -> Result<()> {
        let lens = |parameters: &Self| -> Vec<usize> {
            parameters.chunks.iter().map(|c| c.weights.len()).collect()
        };
        if self.specs != other.specs || lens(self) != lens(other) {
            return Err(Error::Model {
                place: "weights to copy".into(),
                detail: "the two models have other parameters".into(),
            });
        }
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        for (to, from) in self.chunks.iter().zip(&other.chunks) {
            let (to, from) = (&to.weights, &from.weights);
            encoder.copy_buffer_to_buffer(
                from.buffer(),
                from.offset_bytes(),
                to.buffer(),
                to.offset_bytes(),
                from.bytes(),
            );
        }
        gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Takes the weights of the parameters that both have by name, such as all but a value head,
    /// by way of the host.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if their shapes differ, and what reading a tensor refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn copy_common(&self, gpu: &Gpu, other: &Self) -> Result<()> {
        for (spec, values) in other.read_weights(gpu)? {
            if self.slices.contains_key(&spec.name) {
                self.write(gpu, &spec.name, &values)?;
            }
        }
        Ok(())
    }

    /// Zeroes gradients and moments: a new optimiser.
    ///
    /// # Errors
    ///
    /// As [`Tensor::write`].
    pub fn reset_optimizer(&self, gpu: &Gpu) -> Result<()> {
        for chunk in &self.chunks {
            let zeros = vec![0.0f32; chunk.gradients.len()];
            for tensor in [&chunk.gradients, &chunk.m, &chunk.v] {
                tensor.write(gpu, &zeros)?;
            }
        }
        Ok(())
    }

    /// Splits the values of whole buffers, one `Vec` a chunk, into parameters by name.
    pub fn split(&self, buffers: &[Vec<f32>]) -> Vec<(&ParameterSpec, Vec<f32>)> {
        self.specs
            .iter()
            .map(|spec| {
                let mut values = Vec::with_capacity(len(&spec.shape));
                for slice in self.slices.get(&spec.name).into_iter().flatten() {
                    let end = slice.start + slice.len;
                    values.extend_from_slice(&buffers[slice.chunk][slice.start..end]);
                }
                (spec, values)
            })
            .collect()
    }

    /// Reads one kind of tensor of every chunk.
    ///
    /// # Errors
    ///
    /// What reading a tensor refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu, of: impl Fn(&Chunk) -> &Tensor) -> Result<Vec<Vec<f32>>> {
        self.chunks
            .iter()
            .map(|chunk| of(chunk).read(gpu))
            .collect()
    }

    /// Reads every weight, by name, in the order of [`Parameters::specs`].
    ///
    /// # Errors
    ///
    /// What reading a tensor refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_weights(&self, gpu: &Gpu) -> Result<Vec<(&ParameterSpec, Vec<f32>)>> {
        Ok(self.split(&self.read(gpu, |chunk| &chunk.weights)?))
    }

    /// Reads every gradient, by name, in the order of [`Parameters::specs`].
    ///
    /// # Errors
    ///
    /// What reading a tensor refuses.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_gradients(&self, gpu: &Gpu) -> Result<Vec<(&ParameterSpec, Vec<f32>)>> {
        Ok(self.split(&self.read(gpu, |chunk| &chunk.gradients)?))
    }
}

/// Which of the values from element `first` on go where.
fn spread<'a>(slices: &[Slice], first: usize, values: &'a [f32]) -> Vec<(Slice, &'a [f32])> {
    let (mut begin, mut next, mut rest) = (0, first, values);
    let mut parts = Vec::with_capacity(slices.len());
    for slice in slices {
        let end = begin + slice.len;
        let (now, later) = rest.split_at(end.saturating_sub(next).min(rest.len()));
        if !now.is_empty() {
            let part = Slice {
                chunk: slice.chunk,
                start: slice.start + next - begin,
                len: now.len(),
            };
            parts.push((part, now));
        }
        (begin, next, rest) = (end, next + now.len(), later);
    }
    parts
}

fn unknown(name: &str) -> Error {
    Error::Model {
        place: name.into(),
        detail: "the model has no such parameter".into(),
    }
}
