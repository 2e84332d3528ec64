//! The device that the tests share.

use std::sync::OnceLock;

use prefgrad::Gpu;

/// One device for the whole test binary.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new().expect("the tests need a GPU or the software driver"))
}
