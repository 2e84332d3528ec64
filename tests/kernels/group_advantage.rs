//! Advantages within groups: PyTorch's figures, groups without variance or of one response, the
//! same bits twice, and what is refused.

use prefgrad::check::values;
use prefgrad::kernels::policy::Response;
use prefgrad::kernels::policy::group_advantage::{
    GroupAdvantageIo, GroupAdvantageOptions, GroupBaseline, GroupScale, group_advantage,
};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::cases;
use crate::tools::assert_values;

const BASELINES: [GroupBaseline; 2] = [GroupBaseline::Mean, GroupBaseline::LeaveOneOut];
const SCALES: [GroupScale; 3] = [GroupScale::None, GroupScale::Group, GroupScale::Batch];

/// Groups of these scores, one behind another.
fn responses(groups: &[&[f32]]) -> Vec<Response> {
    let mut all = Vec::new();
    for group in groups {
        let group_start = all.len() as u32;
        all.extend(group.iter().map(|&score| Response {
            score,
            group_start,
            group_len: group.len() as u32,
            ..Response::default()
        }));
    }
    all
}

fn run(responses: &[Response], options: &GroupAdvantageOptions) -> Vec<f32> {
    let tensor = Tensor::from_slice(gpu(), "responses", &[responses.len()], responses).unwrap();
    let io = GroupAdvantageIo { responses: &tensor };
    let mut plan = Plan::new(gpu());
    group_advantage(&mut plan, &io, options).unwrap();
    plan.submit();
    let out: Vec<Response> = tensor.read(gpu()).unwrap();
    out.iter().map(|response| response.advantage).collect()
}

fn of(baseline: GroupBaseline, scale: GroupScale) -> GroupAdvantageOptions {
    GroupAdvantageOptions {
        baseline,
        scale,
        ..GroupAdvantageOptions::default()
    }
}

#[test]
fn equals_pytorch() {
    for case in cases("grpo_adv", "") {
        let rewards = case.input("rewards").f32();
        let size = case.number("num_generations") as usize;
        let groups: Vec<&[f32]> = rewards.chunks(size).collect();
        let responses = responses(&groups);
        let scale = match case.name.rsplit('_').next() {
            Some("group") => GroupScale::Group,
            Some("batch") => GroupScale::Batch,
            Some("none") => GroupScale::None,
            other => panic!("no scale {other:?}"),
        };
        let outputs = [
            ("adv", GroupBaseline::Mean, scale),
            ("rloo_adv", GroupBaseline::LeaveOneOut, GroupScale::None),
            (
                "rloo_adv_norm",
                GroupBaseline::LeaveOneOut,
                GroupScale::Batch,
            ),
        ];
        for (name, baseline, scale) in outputs {
            let options = GroupAdvantageOptions {
                eps: case.number("eps") as f32,
                ..of(baseline, scale)
            };
            let what = format!("{} {name}", case.name);
            assert_values(&what, &run(&responses, &options), &case.output(name).f64());
        }
    }
}

#[test]
fn equal_rewards_and_lone_responses_get_exactly_zero() {
    // Numbers whose sum does not divide back exactly.
    let equal: &[f32] = &[0.1; 7];
    let lone: &[f32] = &[1e6 / 3.0];
    for baseline in BASELINES {
        for scale in SCALES {
            for group in [equal, lone] {
                let out = run(&responses(&[group]), &of(baseline, scale));
                assert!(
                    out.iter().all(|&a| a == 0.0),
                    "{baseline:?} {scale:?} {out:?}"
                );
            }
            let shifted = (baseline, scale) == (GroupBaseline::LeaveOneOut, GroupScale::Batch);
            let out = run(
                &responses(&[equal, &[1.0, 2.0, 4.0], lone]),
                &of(baseline, scale),
            );
            let zero = |a: &f32| if shifted { a.abs() < 1e-6 } else { *a == 0.0 };
            assert!(out[..7].iter().all(zero), "{baseline:?} {scale:?} {out:?}");
            assert!(zero(&out[10]), "{baseline:?} {scale:?} {out:?}");
            assert!(out[9] > 0.0 && out[7] < 0.0);
        }
    }
}

#[test]
fn the_reward_is_the_score_less_the_weighted_kl() {
    let mut responses = responses(&[&[3.0, 1.0]]);
    responses[0].kl = 4.0;
    let options = GroupAdvantageOptions {
        kl_coef: 0.25,
        ..of(GroupBaseline::LeaveOneOut, GroupScale::None)
    };
    assert_eq!(run(&responses, &options), [1.0, -1.0]);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let scores = values(1, 3000, 2.0);
    let groups: Vec<&[f32]> = scores.chunks(6).collect();
    let responses = responses(&groups);
    for baseline in BASELINES {
        let options = of(baseline, GroupScale::Batch);
        let bits = || -> Vec<u32> {
            let out = run(&responses, &options);
            out.iter().map(|a| a.to_bits()).collect()
        };
        assert_eq!(bits(), bits());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut plan = Plan::new(gpu());
    let mut refused = |responses: &Tensor, options: GroupAdvantageOptions, word: &str| {
        let io = GroupAdvantageIo { responses };
        let error = group_advantage(&mut plan, &io, &options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let plain = GroupAdvantageOptions::default();
    let floats = Tensor::zeros::<f32>(gpu(), "floats", &[8]).unwrap();
    refused(&floats, plain, "Response");
    let fine = Tensor::zeros::<Response>(gpu(), "fine", &[8]).unwrap();
    for eps in [0.0, -1.0, f32::NAN] {
        refused(&fine, GroupAdvantageOptions { eps, ..plain }, "eps");
    }
    let kl_coef = f32::INFINITY;
    refused(&fine, GroupAdvantageOptions { kl_coef, ..plain }, "kl_coef");
    let many = Tensor::zeros_windowed::<Response>(gpu(), "many", &[5_120_001]).unwrap();
    refused(&many, plain, "5120000");
    assert!(plan.is_empty());
}
