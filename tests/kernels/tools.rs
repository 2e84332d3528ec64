//! What the tests of several kernels share.

use prefgrad::check::values;
use prefgrad::data::batch::Counts;
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::matmul::{Layout, MatmulIo, MatmulSizes, matmul};
use prefgrad::reference::compare::difference;
use prefgrad::{Gpu, Plan, Tensor};

/// Values in [-1, 1), the same in every run.
pub fn random(gpu: &Gpu, label: &str, shape: &[usize], seed: u64) -> Tensor {
    let len = shape.iter().product();
    Tensor::from_slice(gpu, label, shape, &values(seed, len, 1.0)).unwrap()
}

pub fn zeros(gpu: &Gpu, label: &str, shape: &[usize]) -> Tensor {
    Tensor::zeros::<f32>(gpu, label, shape).unwrap()
}

pub fn from_f64(gpu: &Gpu, label: &str, shape: &[usize], values: &[f64]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_slice(gpu, label, shape, &values).unwrap()
}

/// The counts of a batch of `tokens` tokens.
pub fn token_counts(gpu: &Gpu, tokens: u32) -> Tensor {
    let counts = Counts {
        tokens,
        ..Counts::default()
    };
    Tensor::from_slice(gpu, "counts", &[1], &[counts]).unwrap()
}

/// `count` values in [-scale, scale) that f32 holds exactly.
pub fn exact(seed: u64, count: usize, scale: f32) -> Vec<f64> {
    values(seed, count, scale)
        .into_iter()
        .map(f64::from)
        .collect()
}

/// Fails, naming the tensor, where it is further than `bound` from `expected`.
#[track_caller]
pub fn assert_close(gpu: &Gpu, what: &str, actual: &Tensor, expected: &[f64], bound: f64) {
    let difference = difference(&actual.read::<f32>(gpu).unwrap(), expected);
    assert!(
        difference.error <= bound,
        "{what} {}: {difference}",
        actual.label()
    );
}

/// Fails, naming what they are, where values are further than 1e-5 from `expected`.
#[track_caller]
pub fn assert_values(what: &str, actual: &[f32], expected: &[f64]) {
    let difference = difference(actual, expected);
    assert!(difference.error <= 1e-5, "{what}: {difference}");
}

/// The bits of a tensor, to compare runs.
pub fn bits(gpu: &Gpu, tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = tensor.read(gpu).unwrap();
    values.iter().map(|x| x.to_bits()).collect()
}

/// Replays the plan three times and fails where an output's bits differ; `reset` runs before each.
#[track_caller]
pub fn assert_same_bits(plan: &Plan, outputs: &[&Tensor], reset: impl Fn()) {
    let run = || -> Vec<Vec<u32>> {
        reset();
        plan.submit();
        let outputs = outputs.iter();
        outputs.map(|tensor| bits(plan.gpu(), tensor)).collect()
    };
    let first = run();
    assert_eq!(first, run());
    assert_eq!(first, run());
}

/// `out = op(a)·op(b)` of whole tensors.
pub fn product(plan: &mut Plan, layout: Layout, [a, b, out]: [&Tensor; 3]) {
    let io = MatmulIo::whole(a, b, out);
    let sizes = MatmulSizes {
        layout,
        m: Size::fixed(out.shape()[0]),
        n: out.shape()[1],
        k: Size::fixed(a.shape()[usize::from(layout != Layout::Tn)]),
    };
    matmul(plan, &io, &sizes).unwrap();
}
