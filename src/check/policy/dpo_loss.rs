//! Cases of `policy.dpo_loss` and `policy.sequence_logprob`.

use super::answers::{
    SLOT, answer_lists, as_structs, dpo_row, expect_row, index_input, lengths, ring, struct_input,
};
use crate::Result;
use crate::check::support::{expect_start, partly_written};
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, Pair, RowList};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::dpo_loss::{DpoLoss, DpoLossIo, DpoLossOptions, dpo_loss};
use crate::kernels::policy::sequence_logprob::{SequenceLogprobIo, sequence_logprob};
use crate::kernels::policy::{POLICY_METRICS, TokenGradient, TokenLogprob};
use crate::reference::policy::dpo_loss as reference;

const BOUND: f64 = 1e-5;
const PAIR_SCALE: f32 = 0.375;
/// Targets that no answer lists.
const LOOSE: usize = 3;

#[derive(Debug, Clone)]
struct Shape {
    /// Of the chosen and the rejected answer of each pair in turn.
    lengths: Vec<usize>,
    /// Pairs of the batch, where it has counts.
    live: Option<usize>,
    loss: DpoLoss,
    label_smoothing: f32,
    beta: f32,
}

pub(super) fn cases() -> Vec<Case> {
    let shape = |lengths, live, loss| Shape {
        lengths,
        live,
        loss,
        label_smoothing: match loss {
            DpoLoss::Ipo { .. } | DpoLoss::Hinge => 0.0,
            _ => 0.1,
        },
        beta: 0.3,
    };
    let mut cases = Vec::new();
    for loss in [
        DpoLoss::Sigmoid,
        DpoLoss::SigmoidNorm,
        DpoLoss::Robust,
        DpoLoss::Hinge,
        DpoLoss::Ipo { per_token: true },
        DpoLoss::Ipo { per_token: false },
    ] {
        let all = [
            shape(vec![1, 1], None, loss),
            shape(vec![64, 65, 63, 200, 0, 1], None, loss),
            shape(lengths(40, 30), None, loss),
        ];
        cases.extend(all.map(|shape| case(shape, Purpose::Answer)));
    }
    for live in [0, 1, 7] {
        let shape = shape(lengths(24, 20), Some(live), DpoLoss::Sigmoid);
        cases.push(case(shape, Purpose::Answer));
    }
    // More workgroups than a dimension of a dispatch takes.
    let many = shape(vec![1; 2 * 65_541], Some(65_540), DpoLoss::Sigmoid);
    cases.push(case(many, Purpose::Answer));
    let timed = shape(vec![512; 256], None, DpoLoss::Sigmoid);
    cases.push(case(timed, Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let name = format!(
        "{} answers, longest {:?}, live {:?}, {:?}, smoothing {}",
        shape.lengths.len(),
        shape.lengths.iter().max(),
        shape.live,
        shape.loss,
        shape.label_smoothing
    );
    Case::new("policy.dpo_loss", name, purpose, move |gpu| {
        build(gpu, &shape)
    })
}

struct Inputs {
    lists: Vec<RowList>,
    rows: Vec<u32>,
    logprobs: Vec<TokenLogprob>,
    ref_logps: Vec<f32>,
    pairs: Vec<Pair>,
}

fn inputs(shape: &Shape) -> Inputs {
    let (lists, mut rows) = answer_lists(&shape.lengths);
    let n = rows.len() + LOOSE;
    // What stands past the lists belongs to nobody.
    rows.resize(n, 0);
    let logprobs: Vec<TokenLogprob> = values(1, n, 1.0)
        .into_iter()
        .map(|x| TokenLogprob {
            logprob: -2.0 + x,
            entropy: 1.5 + x,
            ..TokenLogprob::default()
        })
        .collect();
    let moved = values(2, lists.len(), 3.0);
    let reference = |(list, moved): (&RowList, f32)| {
        let rows = &rows[list.start as usize..list.end as usize];
        let own = rows.iter().map(|&row| logprobs[row as usize].logprob);
        own.sum::<f32>() + moved
    };
    let weights = values(3, lists.len() / 2, 1.0);
    Inputs {
        ref_logps: lists.iter().zip(moved).map(reference).collect(),
        pairs: weights
            .into_iter()
            .map(|x| Pair {
                weight: 1.25 + x,
                margin: 7.0,
            })
            .collect(),
        lists,
        rows,
        logprobs,
    }
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let inputs = inputs(shape);
    let (answers, n) = (inputs.lists.len(), inputs.logprobs.len());
    let live = shape.live.unwrap_or(inputs.pairs.len());
    let live_targets = shape.live.map_or(n, |_| n - 1);
    let counts = Counts {
        answers: 2 * live as u32,
        pairs: live as u32,
        targets: live_targets as u32,
        slot: SLOT,
        pair_scale: PAIR_SCALE,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let counts = shape.live.map(|_| &counts);
    let lists = struct_input(&mut trial, "answer lists", &inputs.lists)?;
    let rows = index_input(&mut trial, "answer rows", &inputs.rows)?;
    let logprobs = struct_input(&mut trial, "logprobs", &inputs.logprobs)?;
    let ref_logps = trial.input("ref logps", &[answers], &inputs.ref_logps)?;
    let pairs = struct_input(&mut trial, "pairs", &inputs.pairs)?;
    let gradients = partly_written(&mut trial, "gradients", &[2 * n])?;
    let sums = partly_written(&mut trial, "sequence logprobs", &[answers])?;
    let metrics = ring(&mut trial)?;
    let partials = trial.overwritten("partials", &[answers / 2 * POLICY_METRICS])?;
    let io = DpoLossIo {
        answer_lists: &lists,
        answer_rows: &rows,
        logprobs: &logprobs,
        ref_logps: &ref_logps,
        pairs: &pairs,
        gradients: &as_structs::<TokenGradient>(&gradients)?,
        partials: &partials,
        metrics: &metrics,
        counts,
    };
    let options = DpoLossOptions {
        loss: shape.loss,
        beta: shape.beta,
        label_smoothing: shape.label_smoothing,
        pair_scale: PAIR_SCALE,
    };
    dpo_loss(&mut trial.plan, &io, &options)?;
    let io = SequenceLogprobIo {
        answer_lists: &lists,
        answer_rows: &rows,
        logprobs: &logprobs,
        sequence_logprobs: &sums,
        counts,
    };
    sequence_logprob(&mut trial.plan, &io)?;

    let pairs: Vec<_> = (0..live).map(|p| pair(&inputs, p)).collect();
    let options = wide(&options);
    let expected = reference::dpo_loss(&pairs, &options);
    let mut all = vec![0.0; 2 * live_targets];
    let by_answer = expected.dlogprobs.as_flattened();
    for (list, &dlogprob) in inputs.lists.iter().zip(by_answer) {
        for &row in &inputs.rows[list.start as usize..list.end as usize] {
            all[2 * row as usize] = dlogprob;
        }
    }
    expect_start(&mut trial, &gradients, all, BOUND)?;
    let sum = |answer: &reference::DpoAnswer| answer.logprobs.iter().sum();
    let by_answer = pairs
        .iter()
        .flat_map(|pair| [sum(&pair.chosen), sum(&pair.rejected)]);
    expect_start(&mut trial, &sums, by_answer.collect(), BOUND)?;
    let part = |pair: &reference::DpoPair| {
        reference::dpo_loss(std::slice::from_ref(pair), &options).metrics
    };
    let parts: Vec<_> = pairs.iter().map(part).collect();
    let slot = shape.live.map_or(0, |_| SLOT);
    let row = dpo_row(&expected.metrics, &parts);
    expect_row(&mut trial, &metrics, slot, &row)?;
    Ok(trial)
}

fn pair(inputs: &Inputs, p: usize) -> reference::DpoPair {
    let answer = |a: usize| {
        let list = &inputs.lists[a];
        let rows = &inputs.rows[list.start as usize..list.end as usize];
        let token = |&row: &u32| &inputs.logprobs[row as usize];
        reference::DpoAnswer {
            logprobs: rows.iter().map(|row| token(row).logprob.into()).collect(),
            entropies: rows.iter().map(|row| token(row).entropy.into()).collect(),
            ref_logp: inputs.ref_logps[a].into(),
        }
    };
    reference::DpoPair {
        chosen: answer(2 * p),
        rejected: answer(2 * p + 1),
        weight: inputs.pairs[p].weight.into(),
    }
}

fn wide(options: &DpoLossOptions) -> reference::DpoLossOptions {
    reference::DpoLossOptions {
        loss: options.loss,
        beta: options.beta.into(),
        label_smoothing: options.label_smoothing.into(),
        pair_scale: options.pair_scale.into(),
    }
}
