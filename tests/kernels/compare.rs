//! Comparisons of whole tensors.

use prefgrad::Tensor;
use prefgrad::reference::compare::difference;

use crate::gpu::gpu;

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
