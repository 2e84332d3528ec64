//! The host application: its device, buffers and kernels. Nothing here knows of the crate.

use anyhow::{Context, Result, anyhow};
use wgpu::util::DeviceExt;

/// Features of an answer.
pub const FEATURES: usize = 4;

/// An application with a linear reward model on a device of its own.
pub struct Host {
    /// The device, with WebGPU's default limits and no features.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// The reward of each answer.
    pub rewards: wgpu::Buffer,
    /// The gradient of each reward.
    pub drewards: wgpu::Buffer,
    weights: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
    forward: wgpu::ComputePipeline,
    update: wgpu::ComputePipeline,
    answers: u32,
}

impl Host {
    /// Opens a device and uploads the features of all answers.
    pub async fn new(features: &[f32]) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance
            .request_adapter(&Default::default())
            .await
            .context("this machine has no GPU driver: see the README")?;
        let (device, queue) = adapter.request_device(&Default::default()).await?;
        let answers = features.len() / FEATURES;
        let storage = |label: &'static str, values: &[f32]| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: Some(label),
                contents: bytemuck::cast_slice(values),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            })
        };
        let weights = storage("host weights", &[0.0; FEATURES]);
        let inputs = storage("host features", features);
        let rewards = storage("host rewards", &vec![0.0; answers]);
        let drewards = storage("host d rewards", &vec![0.0; answers]);
        let module = device.create_shader_module(wgpu::include_wgsl!("host.wgsl"));
        let layout = layout(&device);
        let pipeline = |entry: &str| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(
                    &device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                        label: Some("host"),
                        bind_group_layouts: &[Some(&layout)],
                        immediate_size: 0,
                    }),
                ),
                module: &module,
                entry_point: Some(entry),
                compilation_options: Default::default(),
                cache: None,
            })
        };
        let (forward, update) = (pipeline("forward"), pipeline("update"));
        let entries: Vec<_> = [&weights, &inputs, &rewards, &drewards]
            .into_iter()
            .enumerate()
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding: binding as u32,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("host"),
            layout: &layout,
            entries: &entries,
        });
        Ok(Self {
            rewards,
            drewards,
            weights,
            bind_group,
            forward,
            update,
            answers: answers as u32,
            device,
            queue,
        })
    }

    /// Records the rewards of all answers.
    pub fn forward(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.forward);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.answers.div_ceil(64), 1, 1);
    }

    /// Records one step down the gradient that somebody wrote into `drewards`.
    pub fn update(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.update);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }

    /// Reads the weights as the host always reads its buffers.
    pub fn read_weights(&self) -> Result<[f32; FEATURES]> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("host readback"),
            size: self.weights.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.weights, 0, &staging, 0, self.weights.size());
        self.queue.submit([encoder.finish()]);
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver is gone only if reading was given up.
            let _ = sender.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        receiver.recv()??;
        let view = staging
            .get_mapped_range(..)
            .map_err(|error| anyhow!("{error:?}"))?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&view[..]);
        values
            .try_into()
            .map_err(|_| anyhow!("four weights were expected"))
    }
}

fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = [false, true, false, false]
        .into_iter()
        .enumerate()
        .map(|(binding, read_only)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("host"),
        entries: &entries,
    })
}
