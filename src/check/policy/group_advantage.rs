//! Cases of `policy.group_advantage`.

use std::ops::Range;

use super::rollout::Structs;
use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::policy::Response;
use crate::kernels::policy::group_advantage::{
    GroupAdvantageIo, GroupAdvantageOptions, GroupBaseline, GroupScale, group_advantage,
};
use crate::reference::policy::group_advantage as reference;

const BOUND: f64 = 1e-5;

#[derive(Debug, Clone)]
struct Shape {
    /// Responses of each group.
    groups: Vec<usize>,
    /// Entries not in use between groups, and at the end.
    unused: usize,
    /// Scores lie in ± `scale` around `offset`.
    scale: f32,
    offset: f32,
    options: GroupAdvantageOptions,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |groups: &[usize], options| Shape {
        groups: groups.to_vec(),
        unused: 0,
        scale: 2.0,
        offset: 0.0,
        options,
    };
    let mut cases = Vec::new();
    for baseline in [GroupBaseline::Mean, GroupBaseline::LeaveOneOut] {
        for scale in [GroupScale::None, GroupScale::Group, GroupScale::Batch] {
            let options = GroupAdvantageOptions {
                baseline,
                scale,
                kl_coef: 0.05,
                ..GroupAdvantageOptions::default()
            };
            let uneven = plain(&[1, 2, 8, 3, 1, 64, 5], options);
            let shapes = [
                plain(&[1], options),
                plain(&[2], options),
                Shape {
                    unused: 2,
                    ..uneven.clone()
                },
                Shape {
                    scale: 1e-3,
                    ..uneven.clone()
                },
                Shape {
                    offset: 100.0,
                    ..uneven
                },
                plain(&[8; 1000], options),
                // Only entries that are not in use.
                Shape {
                    unused: 3,
                    ..plain(&[], options)
                },
            ];
            cases.extend(shapes.map(|shape| case(shape, Purpose::Answer)));
        }
    }
    let options = GroupAdvantageOptions {
        scale: GroupScale::Batch,
        ..GroupAdvantageOptions::default()
    };
    // More workgroups than a dimension of a dispatch takes.
    cases.push(case(
        plain(&vec![2; 32 * 65_535 + 1], options),
        Purpose::Answer,
    ));
    cases.push(case(plain(&[8; 512], options), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let groups = match shape.groups.len() {
        0..10 => format!("{:?}", shape.groups),
        many => format!("{many}x{}", shape.groups[0]),
    };
    let name = format!(
        "groups of {groups}, {} unused, within {:e} of {}, {:?} {:?}",
        shape.unused, shape.scale, shape.offset, shape.options.baseline, shape.options.scale
    );
    Case::new("policy.group_advantage", name, purpose, move |gpu| {
        build(gpu, &shape)
    })
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut end = 0;
    for &len in &shape.groups {
        groups.push(end..end + len);
        end += len + shape.unused;
    }
    let count = end + shape.unused;
    let (scores, kls) = (values(1, count, shape.scale), values(2, count, shape.scale));
    let mut expected: Vec<Response> = scores
        .iter()
        .zip(&kls)
        .map(|(score, &kl)| Response {
            score: score + shape.offset,
            kl,
            advantage: 99.0,
            surprisal: 3.0,
            ..Response::default()
        })
        .collect();
    for group in &groups {
        for response in &mut expected[group.clone()] {
            response.group_start = group.start as u32;
            response.group_len = group.len() as u32;
        }
    }
    let responses = Structs::output(&mut trial, "responses", &[count], &expected)?;
    let io = GroupAdvantageIo {
        responses: &responses.tensor,
    };
    group_advantage(&mut trial.plan, &io, &shape.options)?;

    let kl_coef: f64 = shape.options.kl_coef.into();
    let reward = |response: &Response| {
        let (score, kl): (f64, f64) = (response.score.into(), response.kl.into());
        score - kl_coef * kl
    };
    let rewards: Vec<f64> = expected.iter().map(reward).collect();
    let advantages = reference::group_advantage(
        &rewards,
        &groups,
        shape.options.baseline,
        shape.options.scale,
        shape.options.eps.into(),
    );
    for (response, advantage) in expected.iter_mut().zip(advantages) {
        response.advantage = advantage as f32;
    }
    responses.expect(&mut trial, &expected, &[(2, BOUND)]);
    Ok(trial)
}
