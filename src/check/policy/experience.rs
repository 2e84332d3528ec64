//! Cases of `policy.experience`.

use super::rollout::{Rollout, Structs};
use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, NONE};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::experience::{ExperienceIo, experience};
use crate::kernels::policy::{Experience, Response, TokenLogprob};
use crate::reference::policy::experience::{Token, kl, surprisal};

const BOUND: f64 = 1e-5;
const BEFORE: f32 = 0.4375;

#[derive(Debug, Clone)]
struct Shape {
    /// Tokens of each response.
    lengths: Vec<usize>,
    /// Live targets and answers, where the batch has counts.
    live: Option<(usize, usize)>,
    /// Log-probabilities lie in `-scale` to 0.
    scale: f32,
    reference: bool,
    values: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |lengths: &[usize]| Shape {
        lengths: lengths.to_vec(),
        live: None,
        scale: 4.0,
        reference: true,
        values: true,
    };
    let shapes = [
        plain(&[1]),
        plain(&[0]),
        plain(&[5, 0, 1, 63, 64, 65]),
        plain(&[127, 128, 129, 4096]),
        Shape {
            reference: false,
            ..plain(&[9, 1, 4])
        },
        Shape {
            values: false,
            ..plain(&[9, 1, 4])
        },
        Shape {
            live: Some((20, 3)),
            ..plain(&[5, 8, 3, 4, 2, 9])
        },
        Shape {
            live: Some((0, 0)),
            ..plain(&[5, 8])
        },
        Shape {
            scale: 1e4,
            ..plain(&[77, 3])
        },
        Shape {
            scale: 1e-4,
            ..plain(&[77, 3])
        },
        // More workgroups than a dimension of a dispatch takes.
        plain(&vec![1; 65_600]),
    ];
    let mut cases: Vec<Case> = shapes.map(|shape| case(shape, Purpose::Answer)).into();
    cases.push(case(plain(&[512; 128]), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let lengths = match shape.lengths.len() {
        0..10 => format!("{:?}", shape.lengths),
        many => format!("{many}x{}", shape.lengths[0]),
    };
    let name = format!(
        "responses of {lengths}, live {:?}, within {:e}, reference {}, values {}",
        shape.live, shape.scale, shape.reference, shape.values
    );
    Case::new("policy.experience", name, purpose, move |gpu| {
        build(gpu, &shape)
    })
}

fn logprobs(seed: u64, len: usize, scale: f32) -> Vec<TokenLogprob> {
    let logprob = |x: f32| TokenLogprob {
        logprob: x - scale / 2.0,
        entropy: 77.0,
        lse: -77.0,
        pad: 0,
    };
    let all = values(seed, len, scale / 2.0);
    all.into_iter().map(logprob).collect()
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let rollout = Rollout::new(&shape.lengths);
    let (answers, n) = (rollout.lists.len(), rollout.targets.len());
    let (live_targets, live_answers) = shape.live.unwrap_or((n, answers));
    let counts = Counts {
        targets: live_targets as u32,
        answers: live_answers as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let own = logprobs(1, n, shape.scale);
    let reference = logprobs(2, n, shape.scale);
    let estimates = values(3, n, 2.0);
    let [lists, rows] = rollout.upload(&trial)?;
    let targets = Tensor::from_slice(gpu, "targets", &[n], &rollout.targets)?;
    let logprobs = Structs::input(&mut trial, "logprobs", &own)?;
    let ref_logprobs = Structs::input(&mut trial, "ref_logprobs", &reference)?;
    let value_tensor = trial.input("values", &[n], &estimates)?;
    let before = Experience {
        logprob: BEFORE,
        ref_logprob: BEFORE,
        value: BEFORE,
        advantage: BEFORE,
        returns: BEFORE,
        weight: BEFORE,
        pad: [9; 2],
    };
    let mut expected = vec![before; n];
    let out = Structs::output(&mut trial, "experience", &[n], &expected)?;
    let before = Response {
        score: 1.5,
        kl: BEFORE,
        advantage: -2.5,
        surprisal: BEFORE,
        group_start: 3,
        group_len: 4,
        pad: [5; 2],
    };
    let mut sums = vec![before; answers];
    let responses = Structs::output(&mut trial, "responses", &[answers], &sums)?;
    experience(
        &mut trial.plan,
        &ExperienceIo {
            answer_lists: &lists,
            answer_rows: &rows,
            targets: &targets,
            logprobs: &logprobs.tensor,
            ref_logprobs: shape.reference.then_some(&ref_logprobs.tensor),
            values: shape.values.then_some(&value_tensor),
            experience: &out.tensor,
            responses: &responses.tensor,
            counts: shape.live.map(|_| &counts),
        },
    )?;

    let reference = if shape.reference { &reference } else { &own };
    for (i, expected) in expected.iter_mut().take(live_targets).enumerate() {
        let target = &rollout.targets[i];
        *expected = Experience {
            logprob: own[i].logprob,
            ref_logprob: reference[i].logprob,
            value: if shape.values { estimates[i] } else { 0.0 },
            weight: if target.answer == NONE {
                0.0
            } else {
                target.weight
            },
            ..Experience::default()
        };
    }
    for (a, sums) in sums.iter_mut().take(live_answers).enumerate() {
        let tokens = rollout.tokens(a, |n| Token {
            logprob: own[n].logprob.into(),
            ref_logprob: reference[n].logprob.into(),
            value: 0.0,
            weight: rollout.targets[n].weight.into(),
        });
        sums.kl = kl(&tokens) as f32;
        sums.surprisal = surprisal(&tokens) as f32;
    }
    out.expect(&mut trial, &expected, &[]);
    responses.expect(&mut trial, &sums, &[(1, BOUND), (3, BOUND)]);
    Ok(trial)
}
