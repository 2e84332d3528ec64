//! The device that the tests share.

use std::sync::OnceLock;

use prefgrad::{Gpu, GpuOptions};

/// One device for the whole test binary.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("the tests need a GPU or the software driver"))
}

/// The same device without subgroups, for the kernels that serve devices that lack them.
pub fn gpu_without_subgroups() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        Gpu::with_options(GpuOptions { subgroups: false })
            .expect("the tests need a GPU or the software driver")
    })
}
