//! Cases of `policy.grpo_loss`.

use super::answers::{
    SLOT, answer_lists, as_structs, expect_row, index_input, lengths, policy_row, ring,
    struct_input,
};
use crate::Result;
use crate::check::support::{expect_start, partly_written};
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, RowList};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::grpo_loss::{GrpoLossIo, GrpoLossOptions, RatioLevel, grpo_loss};
use crate::kernels::policy::{Experience, POLICY_METRICS, Response, TokenGradient, TokenLogprob};
use crate::reference::policy::grpo_loss as reference;
use crate::reference::policy::ratio::Interval;

const BOUND: f64 = 1e-5;
const TARGET_SCALE: f32 = 0.375;
/// Targets that no answer lists.
const LOOSE: usize = 3;

#[derive(Debug, Clone)]
struct Shape {
    lengths: Vec<usize>,
    /// Answers of the batch, where it has counts.
    live: Option<usize>,
    options: GrpoLossOptions,
    /// Log-ratios lie in ± this.
    spread: f32,
    masked: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let options = |level, kl_bias_correction: bool| GrpoLossOptions {
        clip_low: 0.2,
        clip_high: 0.28,
        delta: kl_bias_correction.then_some(1.5),
        beta: 0.2,
        kl_bias_correction,
        level,
        target_scale: TARGET_SCALE,
    };
    let shape = |lengths: Vec<usize>, live, options| Shape {
        lengths,
        live,
        options,
        spread: 0.5,
        masked: false,
    };
    let mut cases = Vec::new();
    for level in [
        RatioLevel::Token,
        RatioLevel::SequenceMean,
        RatioLevel::SequenceSum,
    ] {
        for corrected in [false, true] {
            let options = options(level, corrected);
            for lengths in [vec![1], vec![64, 65, 63, 200, 0, 1], lengths(40, 30)] {
                let mut shape = shape(lengths, None, options);
                if level == RatioLevel::SequenceSum {
                    shape.spread = 0.05;
                }
                cases.push(case(shape, Purpose::Answer));
            }
        }
        let plain = options(level, false);
        for live in [0, 1, 7] {
            let shape = shape(lengths(12, 20), Some(live), plain);
            cases.push(case(shape, Purpose::Answer));
        }
        let mut masked = shape(lengths(5, 9), None, plain);
        masked.masked = true;
        cases.push(case(masked, Purpose::Answer));
    }
    // More workgroups than a dimension of a dispatch takes.
    let many = shape(
        vec![1; 65_541],
        Some(65_540),
        options(RatioLevel::Token, true),
    );
    cases.push(case(many, Purpose::Answer));
    let timed = shape(
        vec![512; 256],
        None,
        options(RatioLevel::SequenceMean, true),
    );
    cases.push(case(timed, Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let name = format!(
        "{} responses, longest {:?}, live {:?}, {:?}, correction {}, masked {}",
        shape.lengths.len(),
        shape.lengths.iter().max(),
        shape.live,
        shape.options.level,
        shape.options.kl_bias_correction,
        shape.masked
    );
    Case::new("policy.grpo_loss", name, purpose, move |gpu| {
        build(gpu, &shape)
    })
}

struct Inputs {
    lists: Vec<RowList>,
    rows: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    experience: Vec<Experience>,
    responses: Vec<Response>,
}

fn inputs(shape: &Shape) -> Inputs {
    let (lists, mut rows) = answer_lists(&shape.lengths);
    let n = rows.len() + LOOSE;
    // What stands past the lists belongs to nobody.
    rows.resize(n, 0);
    let [now, old, reference, weight] = [1, 2, 3, 4].map(|seed| values(seed, n, 1.0));
    let advantages = values(5, shape.lengths.len(), 2.0);
    let logprobs = now.iter().map(|now| TokenLogprob {
        logprob: -2.0 + now,
        entropy: 1.5 + now,
        ..TokenLogprob::default()
    });
    let experience = (0..n).map(|i| Experience {
        logprob: -2.0 + now[i] + shape.spread * old[i],
        ref_logprob: -2.0 + now[i] + shape.spread * reference[i],
        weight: if shape.masked || weight[i] > 0.7 {
            0.0
        } else {
            1.25 + weight[i]
        },
        ..Experience::default()
    });
    let response = |&advantage: &f32| Response {
        advantage,
        ..Response::default()
    };
    Inputs {
        lists,
        rows,
        logprobs: logprobs.collect(),
        experience: experience.collect(),
        responses: advantages.iter().map(response).collect(),
    }
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let inputs = inputs(shape);
    let (answers, n) = (inputs.lists.len(), inputs.logprobs.len());
    // The targets of the live answers lie among others; one past the live targets stays as it is.
    let live_targets = shape.live.map_or(n, |_| n - 1);
    let counts = Counts {
        answers: shape.live.unwrap_or(answers) as u32,
        targets: live_targets as u32,
        slot: SLOT,
        target_scale: TARGET_SCALE,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let lists = struct_input(&mut trial, "answer lists", &inputs.lists)?;
    let rows = index_input(&mut trial, "answer rows", &inputs.rows)?;
    let logprobs = struct_input(&mut trial, "logprobs", &inputs.logprobs)?;
    let experience = struct_input(&mut trial, "experience", &inputs.experience)?;
    let responses = struct_input(&mut trial, "responses", &inputs.responses)?;
    let gradients = partly_written(&mut trial, "gradients", &[2 * n])?;
    let metrics = ring(&mut trial)?;
    let partials = trial.overwritten("partials", &[answers * POLICY_METRICS])?;
    let io = GrpoLossIo {
        answer_lists: &lists,
        answer_rows: &rows,
        logprobs: &logprobs,
        experience: &experience,
        responses: &responses,
        gradients: &as_structs::<TokenGradient>(&gradients)?,
        partials: &partials,
        metrics: &metrics,
        counts: shape.live.map(|_| &counts),
    };
    grpo_loss(&mut trial.plan, &io, &shape.options)?;

    let live = shape.live.unwrap_or(answers);
    let responses: Vec<_> = (0..live).map(|a| response(&inputs, a)).collect();
    let options = wide(&shape.options);
    let expected = reference::grpo_loss(&responses, &options);
    let mut all = vec![0.0; 2 * live_targets];
    for (list, dlogprobs) in inputs.lists.iter().zip(&expected.dlogprobs) {
        let rows = &inputs.rows[list.start as usize..list.end as usize];
        for (&row, &dlogprob) in rows.iter().zip(dlogprobs) {
            all[2 * row as usize] = dlogprob;
        }
    }
    expect_start(&mut trial, &gradients, all, BOUND)?;
    let part = |response: &reference::GrpoResponse| {
        reference::grpo_loss(std::slice::from_ref(response), &options).metrics
    };
    let parts: Vec<_> = responses.iter().map(part).collect();
    let slot = shape.live.map_or(0, |_| SLOT);
    let row = policy_row(&expected.metrics, &parts);
    expect_row(&mut trial, &metrics, slot, &row)?;
    Ok(trial)
}

fn response(inputs: &Inputs, answer: usize) -> reference::GrpoResponse {
    let list = &inputs.lists[answer];
    let token = |&row: &u32| {
        let (now, old) = (
            &inputs.logprobs[row as usize],
            &inputs.experience[row as usize],
        );
        reference::GrpoToken {
            logprob: now.logprob.into(),
            entropy: now.entropy.into(),
            old_logprob: old.logprob.into(),
            ref_logprob: old.ref_logprob.into(),
            weight: old.weight.into(),
        }
    };
    let rows = &inputs.rows[list.start as usize..list.end as usize];
    reference::GrpoResponse {
        tokens: rows.iter().map(token).collect(),
        advantage: inputs.responses[answer].advantage.into(),
    }
}

fn wide(options: &GrpoLossOptions) -> reference::GrpoLossOptions {
    reference::GrpoLossOptions {
        interval: Interval {
            low: 1.0 - f64::from(options.clip_low),
            high: 1.0 + f64::from(options.clip_high),
            delta: options.delta.map(f64::from),
        },
        beta: options.beta.into(),
        kl_bias_correction: options.kl_bias_correction,
        level: options.level,
        target_scale: options.target_scale.into(),
    }
}
