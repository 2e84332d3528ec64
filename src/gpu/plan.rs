//! [`Plan`]: a list of dispatches, recorded once and replayed.

use std::ops::Range;
use std::sync::Arc;

use super::binding::{Access, Binding, bind, bound_bytes};
use super::param_arena::ParamArena;
use super::shader::{Pipeline, Shader, Variant};
use super::stage::Stage;
use super::{Gpu, MemoryUse, Params, Tensor};
use crate::{Error, Result};

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
    stages: Vec<Stage>,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// Dispatches recorded once and replayed.
///
/// Shapes are checked and bind groups made while recording; a replay only encodes. Pipelines
/// compile on other threads meanwhile, those of several plans side by side; [`Plan::ready`] waits
/// for them, and so does whatever runs a plan. Values that change between replays live in tensors
/// that the host writes. A plan keeps the buffers it uses alive.
pub struct Plan {
    gpu: Gpu,
    recorded: Vec<Recorded>,
    params: ParamArena,
    scratch: Option<Tensor>,
}

impl Plan {
    /// An empty plan for this device.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            recorded: Vec::new(),
            params: ParamArena::default(),
            scratch: None,
        }
    }

    /// The device the plan was made for.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// `len` values for a dispatch to leave to the next one. The dispatches of a plan come one after
    /// the other, so all of them share one buffer.
    pub(crate) fn scratch(&mut self, len: usize) -> Result<Tensor> {
        let scratch = match self.scratch.take() {
            Some(scratch) if scratch.len() >= len => scratch,
            _ => {
                let gpu = self.gpu.for_use(MemoryUse::Workspace);
                Tensor::zeros::<f32>(&gpu, "scratch", &[len.next_power_of_two()])?
            }
        };
        let window = scratch.window("scratch", 0, &[len]);
        self.scratch = Some(scratch);
        window
    }

    /// Appends a dispatch, after checking all that wgpu would refuse later but for the shader's
    /// text: [`Plan::ready`] says whether that was compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`], [`Error::Overlap`]; [`Error::Shader`] where the device cannot run such
    /// shaders or bindings.
    pub fn push(&mut self, dispatch: &Dispatch<'_>) -> Result<()> {
        if dispatch.workgroups == 0 {
            return Ok(());
        }
        if self.gpu.counts_only() {
            let staged = |b: &&Binding<'_>| b.access == Access::Staged;
            for (place, binding) in (0..).zip(dispatch.bindings.iter().filter(staged)) {
                self.gpu.count_staged(place, binding.tensor);
            }
            return Ok(());
        }
        self.check_bindings(dispatch)?;
        let workgroups = fold(&self.gpu, dispatch.label, dispatch.workgroups)?;
        let params = match dispatch.params.bytes {
            [] => None,
            bytes => Some(self.params.push(&self.gpu, bytes)),
        };
        let (stages, views) = self.stage(dispatch.bindings);
        let (slots, entries) = bind(dispatch, params.as_ref(), &views);
        let pipeline =
            dispatch
                .shader
                .pipeline(&self.gpu, &dispatch.variant, &slots, dispatch.params)?;
        self.gpu.note(|activity| activity.bind_groups += 1);
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
            stages,
            pipeline,
            bind_group,
            workgroups,
        });
        Ok(())
    }

    /// The copies of the bindings that are staged, and for each binding the texture that it then is.
    fn stage(&self, bindings: &[Binding<'_>]) -> (Vec<Stage>, Vec<Option<wgpu::TextureView>>) {
        let mut stages = Vec::new();
        let view = |binding: &Binding<'_>| {
            (binding.access == Access::Staged).then(|| {
                let (stage, view) = self.gpu.stage(stages.len() as u32, binding.tensor);
                stages.push(stage);
                view
            })
        };
        let views = bindings.iter().map(view).collect();
        (stages, views)
    }

    fn check_bindings(&self, dispatch: &Dispatch<'_>) -> Result<()> {
        let limits = self.gpu.limits();
        let storage = dispatch
            .bindings
            .iter()
            .filter(|b| matches!(b.access, Access::Read | Access::Write));
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
                .filter(|b| b.access != Access::Write && !b.overwritten);
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

    /// Waits until all pipelines of the plan are compiled, and helps to compile them.
    ///
    /// Whatever runs a plan waits too; what returns no error then runs nothing and leaves it to
    /// [`Gpu::check`], and so to [`Gpu::wait`] and every read.
    ///
    /// # Errors
    ///
    /// [`Error::Shader`] names the first shader that was refused.
    pub fn ready(&self) -> Result<()> {
        self.ready_range(0..self.recorded.len())
    }

    fn ready_range(&self, range: Range<usize>) -> Result<()> {
        let recorded = self.recorded[range].iter();
        self.gpu
            .compile(recorded.map(|dispatch| &*dispatch.pipeline))
    }

    /// [`Plan::ready_range`] for those that return no error.
    fn is_ready(&self, range: Range<usize>) -> bool {
        let ready = self.ready_range(range);
        ready.map_err(|error| self.gpu.fault(error)).is_ok()
    }

    /// Records the whole plan into a compute pass, which may be a host application's own.
    ///
    /// # Errors
    ///
    /// As [`Plan::ready`]; [`Error::Shape`] for a plan with staged operands, which no pass can copy: see
    /// [`MatmulDesign::Staged`](super::MatmulDesign::Staged) and [`Plan::commands`].
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        if self.recorded.iter().any(Recorded::is_staged) {
            return Err(Error::shape(
                "plan",
                "it copies operands between dispatches, which a pass cannot: use `Plan::commands`, \
                 or open the device with another `MatmulDesign`",
            ));
        }
        self.ready()?;
        for dispatch in &self.recorded {
            dispatch.encode(pass);
        }
        Ok(())
    }

    /// Records the whole plan, in one compute pass where no operands are staged. Nothing is
    /// recorded of a plan with a refused shader, see [`Plan::ready`].
    pub fn commands(&self, encoder: &mut wgpu::CommandEncoder) {
        self.commands_range(encoder, 0..self.recorded.len());
    }

    /// [`Plan::commands`] for some of the plan's dispatches; a range past the end is cut.
    pub fn commands_range(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        let end = range.end.min(self.recorded.len());
        let range = range.start.min(end)..end;
        if self.is_ready(range.clone()) {
            encode_all(encoder, &self.recorded[range]);
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

    /// Encodes the plan as [`Plan::commands`] does into one submission; does not wait for it.
    pub fn submit(&self) -> wgpu::SubmissionIndex {
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        self.commands(&mut encoder);
        self.gpu.note(|activity| activity.submissions += 1);
        self.gpu.queue().submit([encoder.finish()])
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn recorded(&self) -> &[Recorded] {
        &self.recorded
    }
}

impl Recorded {
    pub(super) fn is_staged(&self) -> bool {
        !self.stages.is_empty()
    }

    /// Makes the copies that the dispatch needs, for which no pass may be open.
    pub(super) fn encode_stages(&self, encoder: &mut wgpu::CommandEncoder) {
        for stage in &self.stages {
            stage.encode(encoder);
        }
    }

    /// Encodes the dispatch, whose pipeline is compiled.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        let Some(pipeline) = self.pipeline.made() else {
            return;
        };
        pass.set_pipeline(pipeline);
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

/// Encodes dispatches in order, in one pass up to the next that needs copies.
fn encode_all<'a>(
    encoder: &mut wgpu::CommandEncoder,
    dispatches: impl IntoIterator<Item = &'a Recorded>,
) {
    let mut pass: Option<wgpu::ComputePass<'static>> = None;
    for dispatch in dispatches {
        if dispatch.is_staged() {
            pass = None;
            dispatch.encode_stages(encoder);
        }
        let open = match pass.take() {
            Some(open) => open,
            None => {
                let begun = encoder.begin_compute_pass(&Default::default());
                begun.forget_lifetime()
            }
        };
        dispatch.encode(pass.insert(open));
    }
}

/// [`Plan::ready`] for several plans.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn all_ready<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Result<()> {
    plans.into_iter().try_for_each(Plan::ready)
}

/// Encodes plans one after another into one submission; does not wait for it. Nothing runs where a
/// shader of one of them was refused, see [`Plan::ready`].
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
    if plans.iter().all(|plan| plan.is_ready(0..plan.len())) {
        let dispatches = plans.iter().flat_map(|plan| &plan.recorded);
        encode_all(&mut encoder, dispatches);
    }
    first.gpu.note(|activity| activity.submissions += 1);
    first.gpu.queue().submit([encoder.finish()]);
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
