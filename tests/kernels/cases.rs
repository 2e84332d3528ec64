//! The list of known-answer cases, kernel by kernel.

use prefgrad::check::{Case, Purpose, cases};

use prefgrad::Gpu;

use crate::gpu::{core_gpu, gpu};

/// Runs each case of `kernel` that is not for timing only.
fn check(kernel: &str) {
    check_on(gpu(), kernel);
}

/// The same on the device in hand and on one that keeps to core WebGPU.
fn check_both_forms(kernel: &str) {
    check_on(gpu(), kernel);
    check_on(core_gpu(), kernel);
}

fn check_on(gpu: &Gpu, kernel: &str) {
    let of_kernel: Vec<Case> = cases().into_iter().filter(|c| c.kernel == kernel).collect();
    assert!(!of_kernel.is_empty(), "no case for {kernel}");
    let mut failures = Vec::new();
    for case in of_kernel.iter().filter(|c| c.purpose == Purpose::Answer) {
        let verdicts = case.build(gpu).and_then(|trial| trial.run());
        match verdicts {
            Err(error) => failures.push(format!("{}: {error}", case.name)),
            Ok(verdicts) => failures.extend(
                verdicts
                    .iter()
                    .filter(|v| !v.passed())
                    .map(|v| format!("{}: {v:?}", case.name)),
            ),
        }
    }
    assert!(failures.is_empty(), "{kernel}:\n{}", failures.join("\n"));
}

#[test]
fn matmul() {
    check("nn.matmul");
}

#[test]
fn pairwise_loss() {
    check("preference.pairwise_loss");
}

#[test]
fn pooled_head() {
    check("preference.pooled_head");
}

#[test]
fn grad_norm() {
    check("optim.grad_norm");
}

#[test]
fn adamw() {
    check("optim.adamw");
}

#[test]
fn cross_entropy() {
    check_both_forms("nn.cross_entropy");
}
