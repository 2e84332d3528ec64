//! The device that the tests share.

use std::sync::OnceLock;

use prefgrad::reference::compare::difference;
use prefgrad::{Gpu, GpuOptions, Tensor};

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

/// Fails, naming the tensor, where it is further than 1e-5 (max|a-b| / max|b|) from `expected`.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64]) {
    let difference = difference(actual, expected);
    assert!(difference.error <= 1e-5, "{what}: {difference}");
}

/// The bits of a tensor, to compare runs.
pub fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.read(gpu()).unwrap();
    values.iter().map(|x| x.to_bits()).collect()
}
