//! Cases of `policy.gae`.

use super::rollout::{Rollout, Structs};
use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::Counts;
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::gae::{GaeIo, GaeOptions, gae};
use crate::kernels::policy::{Experience, KlControl, KlEstimator, Response};
use crate::reference::policy::experience::Token;
use crate::reference::policy::gae as reference;

const BOUND: f64 = 1e-5;
const KL_COEF: f32 = 0.0625;

#[derive(Debug, Clone)]
struct Shape {
    /// Tokens of each response.
    lengths: Vec<usize>,
    /// Live answers, where the batch has counts.
    live: Option<usize>,
    /// `logprob - ref_logprob` lies in ± this.
    distance: f32,
    options: GaeOptions,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |lengths: &[usize]| Shape {
        lengths: lengths.to_vec(),
        live: None,
        distance: 1.0,
        options: GaeOptions::default(),
    };
    let shapes = [
        plain(&[1]),
        plain(&[0]),
        plain(&[5, 0, 1, 2, 63, 64, 65, 128, 129, 1000]),
        plain(&[4096]),
        // More workgroups than a dimension of a dispatch takes.
        plain(&vec![2; 65_600]),
        Shape {
            live: Some(3),
            ..plain(&[5, 8, 3, 4, 70, 9])
        },
        Shape {
            live: Some(0),
            ..plain(&[5, 8])
        },
    ];
    let mut cases: Vec<Case> = shapes.map(|shape| case(shape, Purpose::Answer)).into();
    for (gamma, lambda) in [(1.0, 1.0), (1.0, 0.0), (0.0, 0.9), (0.99, 0.9)] {
        let options = GaeOptions {
            gamma,
            lambda,
            ..GaeOptions::default()
        };
        let shape = Shape {
            options,
            ..plain(&[700, 17, 1, 64])
        };
        cases.push(case(shape, Purpose::Answer));
    }
    for kl_estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        for distance in [1e-3, 0.5, 20.0] {
            let options = GaeOptions {
                kl_estimator,
                ..GaeOptions::default()
            };
            let shape = Shape {
                distance,
                options,
                ..plain(&[33, 8, 1])
            };
            cases.push(case(shape, Purpose::Answer));
        }
    }
    cases.push(case(plain(&[512; 128]), Purpose::Timing));
    cases.push(case(plain(&[4096; 8]), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let lengths = match shape.lengths.len() {
        0..12 => format!("{:?}", shape.lengths),
        many => format!("{many}x{}", shape.lengths[0]),
    };
    let options = &shape.options;
    let name = format!(
        "responses of {lengths}, live {:?}, distance {:e}, gamma {}, lambda {}, {:?}",
        shape.live, shape.distance, options.gamma, options.lambda, options.kl_estimator
    );
    Case::new("policy.gae", name, purpose, move |gpu| build(gpu, &shape))
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let rollout = Rollout::new(&shape.lengths);
    let (answers, n) = (rollout.lists.len(), rollout.targets.len());
    let live = shape.live.unwrap_or(answers);
    let counts = Counts {
        answers: live as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let (logprobs, distances) = (values(1, n, 1.0), values(2, n, shape.distance));
    let estimates = values(3, n, 2.0);
    let mut expected: Vec<Experience> = (0..n)
        .map(|i| Experience {
            logprob: logprobs[i],
            ref_logprob: logprobs[i] - distances[i],
            value: estimates[i],
            advantage: 0.4375,
            returns: -0.4375,
            weight: rollout.targets[i].weight,
            pad: [0; 2],
        })
        .collect();
    let scores = values(4, answers, 3.0);
    let scored: Vec<Response> = scores
        .iter()
        .map(|&score| Response {
            score,
            kl: 1e6,
            advantage: 1e6,
            ..Response::default()
        })
        .collect();
    let control = KlControl {
        kl_coef: KL_COEF,
        pad: [0; 3],
    };
    let control = Tensor::from_slice(gpu, "kl_control", &[1], &[control])?;
    let [lists, rows] = rollout.upload(&trial)?;
    let experience = Structs::output(&mut trial, "experience", &[n], &expected)?;
    let responses = Structs::input(&mut trial, "responses", &scored)?;
    let io = GaeIo {
        answer_lists: &lists,
        answer_rows: &rows,
        experience: &experience.tensor,
        responses: &responses.tensor,
        kl_control: &control,
        counts: shape.live.map(|_| &counts),
    };
    gae(&mut trial.plan, &io, &shape.options)?;

    let options = reference::GaeOptions {
        gamma: shape.options.gamma.into(),
        lambda: shape.options.lambda.into(),
        kl_coef: KL_COEF.into(),
        kl_estimator: shape.options.kl_estimator,
    };
    for (a, &score) in scores.iter().enumerate().take(live) {
        let tokens = rollout.tokens(a, |n| Token {
            logprob: expected[n].logprob.into(),
            ref_logprob: expected[n].ref_logprob.into(),
            value: expected[n].value.into(),
            weight: expected[n].weight.into(),
        });
        let out = reference::gae(&tokens, score.into(), &options);
        for (n, (advantage, returns)) in rollout.of(a).zip(out) {
            expected[n].advantage = advantage as f32;
            expected[n].returns = returns as f32;
        }
    }
    experience.expect(&mut trial, &expected, &[(3, BOUND), (4, BOUND)]);
    Ok(trial)
}
