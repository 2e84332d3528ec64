//! The list of known-answer cases, kernel by kernel.

use prefgrad::check::{Case, Purpose, cases};
use prefgrad::{Gpu, MatmulDesign, Tiling};

use crate::gpu::{gpu, gpu_without_subgroups, host_gpu, host_gpu_with, matmul_gpus};

/// Runs each case of `kernel` that is not for timing only.
fn check(kernel: &str) {
    check_on(gpu(), kernel);
}

/// [`check`] with and without subgroups.
fn check_variants(kernel: &str) {
    check(kernel);
    check_on(gpu_without_subgroups(), kernel);
}

fn check_on(gpu: &Gpu, kernel: &str) {
    check_cases(gpu, kernel, |_| true);
}

fn check_cases(gpu: &Gpu, kernel: &str, keep: impl Fn(&Case) -> bool) {
    let wanted = |case: &Case| case.kernel == kernel && keep(case);
    let of_kernel: Vec<Case> = cases().into_iter().filter(wanted).collect();
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
    for gpu in matmul_gpus() {
        // A column of millions of rows fills tiles by a fiftieth: `dispatches_are_folded` instead.
        let tiled = matches!(gpu.matmul_design(), MatmulDesign::Tiled(_));
        check_cases(gpu, "nn.matmul", |case| {
            !(tiled && case.name.starts_with("nn 4194368x"))
        });
    }
}

#[test]
fn attention() {
    check("nn.attention");
    // The same text for each width; wide heads take a software driver long to compile.
    check_cases(gpu_without_subgroups(), "nn.attention", |case| {
        ["64", "80", "128"]
            .iter()
            .all(|width| !case.name.ends_with(width))
    });
}

/// A software driver takes seconds to compile each width.
#[test]
fn attention_through_workgroup_memory() {
    let of_width = |case: &Case, widths: &[&str]| {
        let width = case.name.split_once("width ").map_or("16", |name| name.1);
        widths.contains(&width)
    };
    let small = MatmulDesign::Tiled(Tiling::Small);
    check_cases(&gpu().with_matmul(small), "nn.attention", |case| {
        of_width(case, &["4", "8", "16", "20", "64", "80", "128"])
    });
    // Whole tiles a workgroup.
    let medium = gpu().with_matmul(MatmulDesign::Tiled(Tiling::Medium));
    check_cases(&medium, "nn.attention", |case| {
        of_width(case, &["16", "64"])
    });
    // The smallest blocks.
    let default = host_gpu(wgpu::Limits::default()).with_matmul(small);
    check_cases(&default, "nn.attention", |case| of_width(case, &["64"]));
}

/// WebGPU promises four textures to a kernel; with three, some of these operands stay in buffers, and
/// with one all of them.
#[test]
fn operands_that_textures_do_not_suffice_for_stay_in_buffers() {
    for textures in [3, 1] {
        let limits = wgpu::Limits {
            max_storage_textures_per_shader_stage: textures,
            ..wgpu::Limits::default()
        };
        let gpu = host_gpu_with(wgpu::Features::SUBGROUP, limits);
        let staged = gpu.with_matmul(MatmulDesign::Staged);
        for kernel in ["nn.qk_norm", "optim.adamw"] {
            check_on(&staged, kernel);
        }
        let in_textures = |text: &str| text.contains("texture_storage_2d");
        let staged_any = staged
            .compiled()
            .iter()
            .any(|shader| in_textures(&shader.wgsl));
        let may = staged.matmul_design() == MatmulDesign::Staged && textures > 1;
        assert_eq!(staged_any, may);
    }
}

#[test]
fn layer_norm() {
    check_variants("nn.layer_norm");
}

#[test]
fn rms_norm() {
    check_variants("nn.rms_norm");
}

#[test]
fn qk_norm() {
    check("nn.qk_norm");
}

#[test]
fn bias_gradient() {
    check("nn.bias_gradient");
}

#[test]
fn embedding() {
    check("nn.embedding");
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
fn gelu() {
    check("nn.gelu");
}

#[test]
fn swiglu() {
    check("nn.swiglu");
}

#[test]
fn rope() {
    check("nn.rope");
}

#[test]
fn statistic() {
    check("reduce.statistic");
}

#[test]
fn fill() {
    check("reduce.fill");
}

#[test]
fn cross_entropy() {
    check_variants("nn.cross_entropy");
}

#[test]
fn token_logprob() {
    check_variants("policy.token_logprob");
}

#[test]
fn value_head() {
    check("policy.value_head");
}

#[test]
fn ppo_loss() {
    check("policy.ppo_loss");
}

#[test]
fn grpo_loss() {
    check("policy.grpo_loss");
}

#[test]
fn dpo_loss() {
    check("policy.dpo_loss");
}

#[test]
fn experience() {
    check("policy.experience");
}

#[test]
fn gae() {
    check("policy.gae");
}

#[test]
fn group_advantage() {
    check("policy.group_advantage");
}

#[test]
fn whiten() {
    check("policy.whiten");
}

#[test]
fn copy_rows() {
    check("nn.copy_rows");
}

#[test]
fn attention_decode() {
    check("nn.attention_decode");
    // The same text for each width; wide heads take a software driver long to compile.
    check_cases(gpu_without_subgroups(), "nn.attention_decode", |case| {
        !case.name.ends_with("width 80") && !case.name.ends_with("width 128")
    });
}

#[test]
fn sample() {
    check("policy.sample");
}
