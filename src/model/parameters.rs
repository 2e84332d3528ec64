//! [`Parameters`]: a model's weights, gradients and moments in few large buffers.

use std::collections::HashMap;

use super::Purpose;
use super::specs::{Init, ParameterSpec};
use crate::data::Random;
use crate::gpu::{Gpu, Tensor};
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
    chunk: usize,
    start: usize,
}

/// A model's weights, gradients and moments.
pub struct Parameters {
    specs: Vec<ParameterSpec>,
    windows: HashMap<String, Vec<Window>>,
    chunks: Vec<Chunk>,
}

/// Where a window goes, before there are buffers.
struct Placement {
    spec: usize,
    first_row: usize,
    rows: usize,
    chunk: usize,
    start: usize,
}

#[derive(Default)]
struct ChunkPlan {
    len: usize,
    decayed: usize,
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
        let (placements, plans) = place(&specs, capacity)?;
        let mut chunks = Vec::with_capacity(plans.len());
        for (index, plan) in plans.iter().enumerate() {
            let tensor = |what: &str, len: usize| {
                Tensor::zeros::<f32>(gpu, &format!("parameters {index}: {what}"), &[len])
            };
            let trained = match purpose {
                Purpose::Score => 0,
                Purpose::Train => plan.len,
            };
            chunks.push(Chunk {
                weights: tensor("weights", plan.len)?,
                gradients: tensor("gradients", trained)?,
                m: tensor("first moments", trained)?,
                v: tensor("second moments", trained)?,
                decayed: plan.decayed,
            });
        }
        let mut windows: HashMap<String, Vec<Window>> = HashMap::new();
        for placement in placements {
            let spec = &specs[placement.spec];
            let mut shape = spec.shape.clone();
            shape[0] = placement.rows;
            let chunk = &chunks[placement.chunk];
            let label = format!("d {}", spec.name);
            let gradient = match purpose {
                Purpose::Score => chunk.gradients.clone(),
                Purpose::Train => chunk.gradients.window(&label, placement.start, &shape)?,
            };
            windows.entry(spec.name.clone()).or_default().push(Window {
                first_row: placement.first_row,
                weight: chunk.weights.window(&spec.name, placement.start, &shape)?,
                gradient,
                chunk: placement.chunk,
                start: placement.start,
            });
        }
        Ok(Self {
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

    /// The windows of a parameter, by row.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] if there is no such parameter.
    pub fn windows(&self, name: &str) -> Result<&[Window]> {
        self.windows
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::Model {
                place: name.into(),
                detail: "the model has no such parameter".into(),
            })
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
                hint: "only the token table may be larger than one binding: use a narrower model",
            }),
        }
    }

    /// Gives every parameter its starting value, the same for a seed on every machine.
    ///
    /// # Errors
    ///
    /// What writing a tensor refuses.
    pub fn initialise(&self, gpu: &Gpu, seed: u64) -> Result<()> {
        for (index, spec) in self.specs.iter().enumerate() {
            let count = len(&spec.shape);
            let values = match spec.init {
                Init::Zeros => vec![0.0; count],
                Init::Ones => vec![1.0; count],
                Init::Normal(deviation) => {
                    let mut random = Random::new(seed, index as u64);
                    (0..count).map(|_| deviation * random.normal()).collect()
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
        for (window, values) in self.by_window(name, values)? {
            let tensor = kind(&self.chunks[window.chunk]);
            tensor
                .window(name, window.start, window.weight.shape())?
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
        let windows = self.windows(name)?;
        let len: usize = windows.iter().map(|w| w.weight.len()).sum();
        if first.saturating_add(values.len()) > len {
            return Err(Error::Model {
                place: name.into(),
                detail: format!("{} values from {first} on, it has {len}", values.len()),
            });
        }
        let (mut start, mut rest, mut next) = (0, values, first);
        for window in windows {
            let end = start + window.weight.len();
            let (now, later) = rest.split_at(end.saturating_sub(next).min(rest.len()));
            if !now.is_empty() {
                window
                    .weight
                    .window(name, next - start, &[now.len()])?
                    .write(gpu, now)?;
            }
            next += now.len();
            (start, rest) = (end, later);
        }
        Ok(())
    }

    /// A parameter's values in whole buffers, one `Vec` a chunk, a slice for each of its windows.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for an unknown name.
    pub fn slices<'a>(&self, name: &str, buffers: &'a [Vec<f32>]) -> Result<Vec<&'a [f32]>> {
        let slice = |window: &Window| {
            &buffers[window.chunk][window.start..window.start + window.weight.len()]
        };
        Ok(self.windows(name)?.iter().map(slice).collect())
    }

    /// Puts a parameter's values to their place in whole buffers, one `Vec` a chunk.
    ///
    /// # Errors
    ///
    /// As [`Parameters::write`].
    pub fn place(&self, name: &str, values: &[f32], buffers: &mut [Vec<f32>]) -> Result<()> {
        for (window, values) in self.by_window(name, values)? {
            buffers[window.chunk][window.start..window.start + values.len()]
                .copy_from_slice(values);
        }
        Ok(())
    }

    fn by_window<'a>(&self, name: &str, values: &'a [f32]) -> Result<Vec<(&Window, &'a [f32])>> {
        let windows = self.windows(name)?;
        let expected: usize = windows.iter().map(|w| w.weight.len()).sum();
        if values.len() != expected {
            return Err(Error::Model {
                place: name.into(),
                detail: format!("{} values, the model has {expected}", values.len()),
            });
        }
        let mut rest = values;
        Ok(windows
            .iter()
            .map(|window| {
                let (now, later) = rest.split_at(window.weight.len());
                rest = later;
                (window, now)
            })
            .collect())
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
            if self.windows.contains_key(&spec.name) {
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
                for window in self.windows.get(&spec.name).into_iter().flatten() {
                    let end = window.start + window.weight.len();
                    values.extend_from_slice(&buffers[window.chunk][window.start..end]);
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

fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Decides which window of which parameter goes where: those with weight decay first.
fn place(specs: &[ParameterSpec], capacity: usize) -> Result<(Vec<Placement>, Vec<ChunkPlan>)> {
    let mut placements = Vec::new();
    let mut chunks = vec![ChunkPlan::default()];
    for decay in [true, false] {
        for (index, spec) in specs.iter().enumerate().filter(|(_, s)| s.decay == decay) {
            let row = len(&spec.shape[1..]).max(1);
            if row > capacity {
                return Err(Error::Limit {
                    what: spec.name.clone(),
                    needed: row as u64 * 4,
                    limit_name: "maxStorageBufferBindingSize",
                    limit: capacity as u64 * 4,
                    hint: "use a narrower model",
                });
            }
            let mut first_row = 0;
            while first_row < spec.shape[0] {
                // Windows that start at a multiple of four rows suit matrix products.
                let fitting = match capacity / row {
                    few @ 0..4 => few,
                    many => many / 4 * 4,
                };
                let rows = (spec.shape[0] - first_row).min(fitting);
                let padded = (rows * row).next_multiple_of(ALIGN);
                let last = chunks.len() - 1;
                if chunks[last].len + padded > capacity {
                    chunks.push(ChunkPlan::default());
                }
                let chunk = chunks.len() - 1;
                placements.push(Placement {
                    spec: index,
                    first_row,
                    rows,
                    chunk,
                    start: chunks[chunk].len,
                });
                chunks[chunk].len += padded;
                if decay {
                    chunks[chunk].decayed = chunks[chunk].len;
                }
                first_row += rows;
            }
        }
    }
    Ok((placements, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(sizes: &[(usize, usize, bool)]) -> Vec<ParameterSpec> {
        sizes
            .iter()
            .enumerate()
            .map(|(i, &(rows, cols, decay))| ParameterSpec {
                name: format!("p{i}"),
                shape: vec![rows, cols],
                decay,
                init: Init::Zeros,
            })
            .collect()
    }

    #[test]
    fn a_table_over_the_limit_is_split_by_rows_and_none_is_lost() {
        let (placed, chunks) = place(&specs(&[(100, 10, true), (3, 7, false)]), 256).unwrap();
        let table: Vec<_> = placed.iter().filter(|p| p.spec == 0).collect();
        assert_eq!(table.iter().map(|p| p.rows).sum::<usize>(), 100);
        assert!(
            table
                .windows(2)
                .all(|w| w[0].first_row + w[0].rows == w[1].first_row)
        );
        assert!(chunks.iter().all(|c| c.len <= 256 && c.decayed <= c.len));
        assert!(placed.iter().all(|p| p.start.is_multiple_of(ALIGN)));
    }

    #[test]
    fn decay_ends_at_one_place_in_each_buffer() {
        let sizes = [(1, 64, false), (2, 64, true), (1, 64, false), (1, 10, true)];
        let (placed, chunks) = place(&specs(&sizes), 1024).unwrap();
        assert_eq!(
            (chunks.len(), chunks[0].decayed, chunks[0].len),
            (1, 192, 320)
        );
        for p in &placed {
            assert_eq!(sizes[p.spec].2, p.start < 192);
        }
    }

    #[test]
    fn a_row_over_the_limit_is_refused_by_name() {
        let error = place(&specs(&[(2, 300, true)]), 256)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("p0"), "{error}");
    }
}
