//! [`Plan`]: a list of dispatches, recorded once and replayed.

use std::ops::Range;
use std::sync::Arc;

use super::shader::{Pipeline, Shader, Variant};
use super::tensor::MIN_BYTES;
use super::{Gpu, Params, Tensor};
use crate::{Error, Result};

/// How a kernel uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<uniform>`
    Uniform,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
}

/// A tensor at a binding number of group 0. Number 0 is the kernel's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    slot: u32,
    access: Access,
    tensor: &'a Tensor,
}

impl<'a> Binding<'a> {
    /// `var<uniform>` at `slot`.
    pub fn uniform(slot: u32, tensor: &'a Tensor) -> Self {
        Self {
            slot,
            access: Access::Uniform,
            tensor,
        }
    }

    /// `var<storage, read>` at `slot`.
    pub fn read(slot: u32, tensor: &'a Tensor) -> Self {
        Self {
            slot,
            access: Access::Read,
            tensor,
        }
    }

    /// `var<storage, read_write>` at `slot`.
    pub fn write(slot: u32, tensor: &'a Tensor) -> Self {
        Self {
            slot,
            access: Access::Write,
            tensor,
        }
    }
}

/// What a dispatch costs at full capacity: floating-point operations and bytes moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, each tensor counted once.
    pub bytes: u64,
}

/// One dispatch to record.
#[derive(Debug)]
pub struct Dispatch<'a> {
    /// The label in profiles and debuggers, as in `nn.matmul`.
    pub label: &'static str,
    /// The kernel.
    pub shader: &'a Shader,
    /// Its variant.
    pub variant: Variant<'a>,
    /// The parameter struct at binding 0.
    pub params: Params<'a>,
    /// The other bindings.
    pub bindings: &'a [Binding<'a>],
    /// How many workgroups, folded over the three dimensions by [`fold`].
    pub workgroups: u64,
    /// What it costs.
    pub cost: Cost,
}

pub(super) struct Recorded {
    pub(super) label: &'static str,
    pub(super) cost: Cost,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// Dispatches recorded once and replayed.
///
/// Shapes are checked and pipelines and bind groups made while recording; a replay only encodes.
/// Values that change between replays live in tensors that the host writes. A plan keeps the
/// buffers it uses alive.
pub struct Plan {
    gpu: Gpu,
    recorded: Vec<Recorded>,
    params: ParamArena,
}

impl Plan {
    /// An empty plan for this device.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            recorded: Vec::new(),
            params: ParamArena::default(),
        }
    }

    /// The device the plan was made for.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Appends a dispatch, after checking all that wgpu would refuse later.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::Overlap`], [`Error::Shader`].
    pub fn push(&mut self, dispatch: &Dispatch<'_>) -> Result<()> {
        if dispatch.workgroups == 0 || self.gpu.counts_only() {
            return Ok(());
        }
        self.check_bindings(dispatch)?;
        let workgroups = fold(&self.gpu, dispatch.label, dispatch.workgroups)?;
        let mut slots = Vec::with_capacity(dispatch.bindings.len() + 1);
        let mut entries = Vec::with_capacity(dispatch.bindings.len() + 1);
        let params = match dispatch.params.bytes {
            [] => None,
            bytes => Some(self.params.push(&self.gpu, bytes)),
        };
        if let Some((buffer, offset)) = &params {
            slots.push((0, Access::Uniform));
            entries.push(wgpu::BindGroupEntry {
                binding: 0,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: *offset,
                    size: wgpu::BufferSize::new(dispatch.params.bytes.len() as u64),
                }),
            });
        }
        for binding in dispatch.bindings {
            slots.push((binding.slot, binding.access));
            entries.push(wgpu::BindGroupEntry {
                binding: binding.slot,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: binding.tensor.buffer(),
                    offset: binding.tensor.offset_bytes(),
                    size: wgpu::BufferSize::new(bound_bytes(binding.tensor)),
                }),
            });
        }
        let pipeline =
            dispatch
                .shader
                .pipeline(&self.gpu, &dispatch.variant, &slots, dispatch.params)?;
        let bind_group = self
            .gpu
            .guarded(wgpu::ErrorFilter::Validation, || {
                self.gpu
                    .device()
                    .create_bind_group(&wgpu::BindGroupDescriptor {
                        label: Some(dispatch.label),
                        layout: &pipeline.layout,
                        entries: &entries,
                    })
            })
            .map_err(|detail| Error::Device {
                during: format!("binding the tensors of {}", dispatch.label),
                detail,
            })?;
        self.recorded.push(Recorded {
            label: dispatch.label,
            cost: dispatch.cost,
            pipeline,
            bind_group,
            workgroups,
        });
        Ok(())
    }

    fn check_bindings(&self, dispatch: &Dispatch<'_>) -> Result<()> {
        let limits = self.gpu.limits();
        let storage = dispatch
            .bindings
            .iter()
            .filter(|b| b.access != Access::Uniform);
        let count = storage.clone().count() as u64;
        let limit = u64::from(limits.max_storage_buffers_per_shader_stage);
        if count > limit {
            return Err(Error::Limit {
                what: dispatch.label.into(),
                needed: count,
                limit_name: "maxStorageBuffersPerShaderStage",
                limit,
                hint: "open the device with WebGPU's default limits or more",
            });
        }
        for binding in storage.clone() {
            let needed = bound_bytes(binding.tensor);
            if needed > limits.max_storage_buffer_binding_size {
                return Err(Error::Limit {
                    what: binding.tensor.label().into(),
                    needed,
                    limit_name: "maxStorageBufferBindingSize",
                    limit: limits.max_storage_buffer_binding_size,
                    hint: "bind it in windows, or use a smaller batch, vocabulary or width",
                });
            }
            let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
            if !binding.tensor.offset_bytes().is_multiple_of(alignment) {
                return Err(Error::Limit {
                    what: binding.tensor.label().into(),
                    needed: binding.tensor.offset_bytes(),
                    limit_name: "minStorageBufferOffsetAlignment",
                    limit: alignment,
                    hint: "start the window at a multiple of this many bytes",
                });
            }
        }
        for written in storage.clone().filter(|b| b.access == Access::Write) {
            let same = |read: &&Binding<'_>| read.tensor.buffer() == written.tensor.buffer();
            let reads = dispatch
                .bindings
                .iter()
                .filter(|b| b.access != Access::Write);
            if let Some(read) = reads.clone().find(same) {
                return Err(Error::Overlap {
                    op: dispatch.label.into(),
                    read: read.tensor.label().into(),
                    written: written.tensor.label().into(),
                });
            }
        }
        Ok(())
    }

    /// The number of dispatches.
    pub fn len(&self) -> usize {
        self.recorded.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }

    /// The cost of all dispatches together.
    pub fn cost(&self) -> Cost {
        self.recorded.iter().fold(Cost::default(), |sum, d| Cost {
            flops: sum.flops + d.cost.flops,
            bytes: sum.bytes + d.cost.bytes,
        })
    }

    /// Records the whole plan into a compute pass, which may be a host application's own.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_range(pass, 0..self.recorded.len());
    }

    /// Records some of the plan's dispatches; a range past the end is cut.
    pub fn encode_range(&self, pass: &mut wgpu::ComputePass<'_>, range: Range<usize>) {
        let end = range.end.min(self.recorded.len());
        for dispatch in &self.recorded[range.start.min(end)..end] {
            dispatch.encode(pass);
        }
    }

    /// Cuts the plan into ranges of at most `budget` floating-point operations (a byte moved
    /// counts as one), each of one dispatch or more, for devices that end long submissions.
    pub fn parts(&self, budget: u64) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut spent) = (0, 0u64);
        for (index, dispatch) in self.recorded.iter().enumerate() {
            let cost = dispatch.cost.flops + dispatch.cost.bytes;
            if index > start && spent + cost > budget {
                parts.push(start..index);
                (start, spent) = (index, 0);
            }
            spent += cost;
        }
        if start < self.recorded.len() {
            parts.push(start..self.recorded.len());
        }
        parts
    }

    /// Encodes the plan into one pass of one submission; does not wait for it.
    pub fn submit(&self) -> wgpu::SubmissionIndex {
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        self.encode(&mut encoder.begin_compute_pass(&Default::default()));
        self.gpu.queue().submit([encoder.finish()])
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }
}

impl Recorded {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.recorded.iter().map(|d| (d.label, d.workgroups)))
            .finish()
    }
}

/// Encodes plans one after another into one pass of one submission; does not wait for it.
///
/// Plans of another device than the first one's are a mistake that wgpu reports.
pub fn submit_together(plans: &[&Plan]) {
    let Some(first) = plans.first() else {
        return;
    };
    let mut encoder = first
        .gpu
        .device()
        .create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for plan in plans {
            plan.encode(&mut pass);
        }
    }
    first.gpu.queue().submit([encoder.finish()]);
}

/// A binding must hold one element, so short tensors bind some of what follows in their buffer.
fn bound_bytes(tensor: &Tensor) -> u64 {
    tensor
        .bytes()
        .max(MIN_BYTES)
        .min(tensor.buffer().size() - tensor.offset_bytes())
}

/// Spreads `workgroups` over x, y and z so that no dimension passes the device's limit.
///
/// Kernels number their workgroups `x + count.x * (y + count.y * z)` and return at once where
/// that is past their last one.
///
/// # Errors
///
/// [`Error::Limit`] where even three dimensions are too few.
pub fn fold(gpu: &Gpu, label: &str, workgroups: u64) -> Result<[u32; 3]> {
    let limit = u64::from(gpu.limits().max_compute_workgroups_per_dimension);
    let x = workgroups.min(limit);
    let y = workgroups.div_ceil(x).min(limit);
    let z = workgroups.div_ceil(x * y);
    // Kernels count workgroups in 32 bits.
    if z > limit || x * y * z > u64::from(u32::MAX) {
        return Err(Error::Limit {
            what: label.into(),
            needed: workgroups,
            limit_name: "maxComputeWorkgroupsPerDimension",
            limit,
            hint: "use a smaller batch",
        });
    }
    Ok([x as u32, y as u32, z as u32])
}

/// Parameter structs of a plan, in few uniform buffers.
#[derive(Default)]
struct ParamArena {
    chunk: Option<wgpu::Buffer>,
    used: u64,
}

impl ParamArena {
    const CHUNK_BYTES: u64 = 1 << 14;

    fn push(&mut self, gpu: &Gpu, bytes: &[u8]) -> (wgpu::Buffer, u64) {
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment);
        let offset = self.used.next_multiple_of(alignment);
        let end = offset + bytes.len() as u64;
        let (buffer, offset) = match &self.chunk {
            Some(chunk) if end <= Self::CHUNK_BYTES => (chunk.clone(), offset),
            _ => (self.new_chunk(gpu), 0),
        };
        self.used = offset + bytes.len() as u64;
        gpu.queue().write_buffer(&buffer, offset, bytes);
        (buffer, offset)
    }

    fn new_chunk(&mut self, gpu: &Gpu) -> wgpu::Buffer {
        let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("kernel parameters"),
            size: Self::CHUNK_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.chunk = Some(buffer.clone());
        buffer
    }
}
