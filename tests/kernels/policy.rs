//! What the tests of the policy losses share.

use bytemuck::Pod;
use prefgrad::data::batch::Counts;
use prefgrad::kernels::policy::{POLICY_METRICS, TokenGradient, TokenLogprob};
use prefgrad::reference::compare::{difference, f32_bound};
use prefgrad::{Element, Tensor};

use crate::gpu::gpu;
use crate::support::golden::Case;

/// Rows of the rings of metrics.
pub const SLOTS: usize = 2;

pub fn tensor<T: Element>(label: &str, items: &[T]) -> Tensor {
    Tensor::from_slice(gpu(), label, &[items.len()], items).unwrap()
}

pub fn empty<T: Element>(label: &str, shape: &[usize]) -> Tensor {
    Tensor::zeros::<T>(gpu(), label, shape).unwrap()
}

pub fn counts(counts: Counts) -> Tensor {
    tensor("counts", &[counts])
}

/// A ring of metrics and what lies in its rows.
pub fn ring() -> Tensor {
    empty::<f32>("metrics", &[SLOTS, POLICY_METRICS])
}

pub fn rows(metrics: &Tensor) -> Vec<[f32; POLICY_METRICS]> {
    let values: Vec<f32> = metrics.read(gpu()).unwrap();
    values.as_chunks().0.to_vec()
}

pub fn logprobs(values: &[f32]) -> Vec<TokenLogprob> {
    let token = |&logprob: &f32| TokenLogprob {
        logprob,
        ..TokenLogprob::default()
    };
    values.iter().map(token).collect()
}

pub fn dlogprobs(gradients: &[TokenGradient]) -> Vec<f32> {
    gradients.iter().map(|gradient| gradient.dlogprob).collect()
}

/// The bits of structs, to compare runs.
pub fn words<T: Pod>(items: &[T]) -> Vec<u32> {
    bytemuck::cast_slice(items).to_vec()
}

/// Fails where values are further from an array of a case than twice the error of PyTorch's own
/// `f32` run, or 1e-5 where that is larger.
#[track_caller]
pub fn assert_golden<T: Copy + Into<f64>>(
    case: &Case,
    array: &str,
    actual: &[T],
    expected: &[f64],
) {
    let bound = f32_bound(case.torch_error(array).unwrap_or(0.0));
    let difference = difference(actual, expected);
    assert!(
        difference.error <= bound,
        "{} {array}: {difference}, bound {bound:e}",
        case.name
    );
}

/// [`assert_golden`] for a figure of the case's outputs.
#[track_caller]
pub fn assert_figure(case: &Case, name: &str, actual: f64) {
    let expected = case.output(name).f64();
    assert_golden(case, &format!("out.{name}"), &[actual], &expected);
}
