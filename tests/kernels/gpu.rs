//! The device that the tests share.

use std::sync::OnceLock;

use prefgrad::{Gpu, GpuOptions};

/// One device for the whole test binary.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("the tests need a GPU or the software driver"))
}

/// A second device, which keeps to core WebGPU.
pub fn core_gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    let options = GpuOptions { subgroups: false };
    GPU.get_or_init(|| Gpu::with_options(options).expect("the first device opened"))
}
