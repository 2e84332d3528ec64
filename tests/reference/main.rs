//! The `f64` reference against finite differences, PyTorch and `transformers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod finite_differences;
mod golden;
mod golden_attention;
mod models;
mod shared_prompts;

use prefgrad::reference::compare::difference;

/// Largest relative error of the reference against PyTorch's `float64`.
const F64_BOUND: f64 = 1e-9;

/// Largest relative error of a backward against central differences.
const FINITE_DIFFERENCE_BOUND: f64 = 1e-7;

/// Fails, naming the case, where `actual` is further than `bound` from `expected`.
#[track_caller]
fn assert_close(what: &str, actual: &[f64], expected: &[f64], bound: f64) {
    let difference = difference(actual, expected);
    assert!(difference.error <= bound, "{what}: {difference}");
}

/// `Σ_i a_i b_i`: turns an output into a scalar with the gradient `b`.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
