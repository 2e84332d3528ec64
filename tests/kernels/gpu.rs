//! The device that the tests share.

use std::sync::OnceLock;

use prefgrad::{Gpu, GpuOptions, MatmulDesign, Tiling};

/// One device for the whole test binary.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("the tests need a GPU or the software driver"))
}

/// The same device without subgroups, for the kernels that serve devices that lack them.
pub fn gpu_without_subgroups() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let options = GpuOptions {
            subgroups: false,
            ..GpuOptions::default()
        };
        Gpu::with_options(options).expect("the tests need a GPU or the software driver")
    })
}

/// The device with each design of matrix product that it can run.
pub fn matmul_gpus() -> &'static [Gpu] {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let designs = gpu().matmul_designs();
        let with = |design: MatmulDesign| gpu().with_matmul(design);
        designs.into_iter().map(with).collect()
    })
}

/// A device that a host application has opened with these limits.
pub fn host_gpu(limits: wgpu::Limits) -> Gpu {
    host_gpu_with(wgpu::Features::empty(), limits)
}

/// The same, with those of the features that the adapter has.
pub fn host_gpu_with(features: wgpu::Features, limits: wgpu::Limits) -> Gpu {
    let (device, queue) = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = instance.request_adapter(&Default::default()).await;
        let adapter = adapter.expect("the tests need a GPU or the software driver");
        let descriptor = wgpu::DeviceDescriptor {
            required_features: adapter.features() & features,
            required_limits: limits,
            ..Default::default()
        };
        adapter.request_device(&descriptor).await.unwrap()
    });
    Gpu::from_device(device, queue, GpuOptions::default())
}

/// The device with each form of the attention kernels: the one it prefers, that without subgroups,
/// and those through workgroup memory with half a tile and a whole tile a workgroup.
pub fn attention_gpus() -> [&'static Gpu; 4] {
    static TILED: OnceLock<[Gpu; 2]> = OnceLock::new();
    let tiled = TILED.get_or_init(|| {
        [Tiling::Small, Tiling::Medium].map(|tiling| gpu().with_matmul(MatmulDesign::Tiled(tiling)))
    });
    [gpu(), gpu_without_subgroups(), &tiled[0], &tiled[1]]
}
