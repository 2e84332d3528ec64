//! Targets of answers, and what the cases of policy losses share.

use crate::Result;
use crate::check::{Trial, values};
use crate::data::batch::RowList;
use crate::gpu::{DeviceStruct, Tensor};
use crate::kernels::policy::{DpoMetrics, POLICY_METRICS, PolicyMetrics};

/// Rows of the ring of metrics in the cases; [`SLOT`] lies beyond and wraps to row 1.
pub(super) const SLOTS: usize = 3;
pub(super) const SLOT: u32 = 4;
const BOUND: f64 = 1e-5;
const ZERO_BOUND: f64 = 1e-6;
const UNTOUCHED: f32 = -5.0;

/// Lists of the targets of answers of these lengths, laid out as behind a shared prompt: the first
/// targets of all answers stand together, then come the others, answer by answer.
pub fn answer_lists(lengths: &[usize]) -> (Vec<RowList>, Vec<u32>) {
    let mut rest = lengths.iter().filter(|&&len| len > 0).count() as u32;
    let mut first = 0;
    let (mut lists, mut rows) = (Vec::new(), Vec::new());
    for (id, &len) in (0..).zip(lengths) {
        let start = rows.len() as u32;
        if len > 0 {
            rows.push(first);
            first += 1;
            rows.extend(rest..rest + len as u32 - 1);
            rest += len as u32 - 1;
        }
        let end = rows.len() as u32;
        lists.push(RowList {
            id,
            start,
            end,
            pad: 0,
        });
    }
    (lists, rows)
}

/// Lengths of `count` answers around `mean`, of one token and of none among them.
pub(super) fn lengths(count: usize, mean: usize) -> Vec<usize> {
    let spread = values(41, count, 1.0);
    let length = |(i, x): (usize, f32)| match i % 7 {
        3 => 1,
        5 => 0,
        _ => ((mean as f32) * (1.0 + 0.9 * x)) as usize,
    };
    spread.into_iter().enumerate().map(length).collect()
}

/// A tensor of structs that the kernels only read, with sentinels around it.
pub(super) fn struct_input<T: DeviceStruct>(
    trial: &mut Trial,
    label: &str,
    items: &[T],
) -> Result<Tensor> {
    let words: &[f32] = bytemuck::cast_slice(items);
    let tensor = trial.input(label, &[words.len()], words)?;
    as_structs::<T>(&tensor)
}

/// Words of a tensor as the structs that they make up.
pub(super) fn as_structs<T: DeviceStruct>(words: &Tensor) -> Result<Tensor> {
    let count = words.bytes() as usize / size_of::<T>();
    let buffer = words.buffer().clone();
    Tensor::from_buffer::<T>(words.label(), buffer, words.offset_bytes(), &[count])
}

/// A list of indices that the kernels only read.
pub(super) fn index_input(trial: &mut Trial, label: &str, indices: &[u32]) -> Result<Tensor> {
    let words: &[f32] = bytemuck::cast_slice(indices);
    let tensor = trial.input(label, &[words.len()], words)?;
    let buffer = tensor.buffer().clone();
    Tensor::from_buffer::<u32>(label, buffer, tensor.offset_bytes(), &[indices.len()])
}

/// A ring of metrics of which one row is to be written.
pub(super) fn ring(trial: &mut Trial) -> Result<Tensor> {
    let before = [UNTOUCHED; SLOTS * POLICY_METRICS];
    trial.output("metrics", &[SLOTS, POLICY_METRICS], &before)
}

/// Expects the figures in the row of the ring that is `slot` modulo its rows, and nothing in the
/// others. `magnitudes` are the sums of what was added without its sign.
pub(super) fn expect_row(
    trial: &mut Trial,
    metrics: &Tensor,
    slot: u32,
    row: &[(&str, f64, f64); POLICY_METRICS],
) -> Result<()> {
    let slot = slot as usize % SLOTS;
    for (column, &(name, value, magnitude)) in row.iter().enumerate() {
        let bound = if value == 0.0 {
            ZERO_BOUND * magnitude
        } else {
            BOUND * magnitude / value.abs()
        };
        let figure = metrics.window(name, slot * POLICY_METRICS + column, &[1])?;
        trial.expect(&figure, vec![value], bound);
    }
    for other in (0..SLOTS).filter(|&row| row != slot) {
        let row = metrics.window("another row", other * POLICY_METRICS, &[POLICY_METRICS])?;
        trial.expect(&row, vec![UNTOUCHED.into(); POLICY_METRICS], 0.0);
    }
    Ok(())
}

/// The figures of a batch with the magnitudes of what its parts add; counts must be exact.
pub(super) fn policy_row(
    whole: &PolicyMetrics,
    parts: &[PolicyMetrics],
) -> [(&'static str, f64, f64); POLICY_METRICS] {
    let sum = |name, of: fn(&PolicyMetrics) -> f64| {
        let magnitude: f64 = parts.iter().map(|part| of(part).abs()).sum();
        (name, of(whole), magnitude)
    };
    let exact = |name, value| (name, value, 0.0);
    [
        sum("loss", |m| m.loss),
        sum("policy loss", |m| m.policy_loss),
        sum("value loss", |m| m.value_loss),
        sum("entropy", |m| m.entropy),
        sum("k1", |m| m.approx_kl_k1),
        sum("k2", |m| m.approx_kl_k2),
        sum("k3", |m| m.approx_kl_k3),
        sum("kl", |m| m.kl),
        ("smallest ratio", whole.ratio_min, whole.ratio_min),
        ("largest ratio", whole.ratio_max, whole.ratio_max),
        exact("clipped low", whole.clip_low),
        exact("clipped high", whole.clip_high),
        exact("clipped values", whole.value_clip),
        exact("tokens", whole.tokens),
        exact("not finite", whole.non_finite),
        exact("held", whole.held),
    ]
}

/// [`policy_row`] for pairs.
pub(super) fn dpo_row(
    whole: &DpoMetrics,
    parts: &[DpoMetrics],
) -> [(&'static str, f64, f64); POLICY_METRICS] {
    let sum = |name, of: fn(&DpoMetrics) -> f64| {
        let magnitude: f64 = parts.iter().map(|part| of(part).abs()).sum();
        (name, of(whole), magnitude)
    };
    let exact = |name, value| (name, value, 0.0);
    [
        sum("loss", |m| m.loss),
        exact("correct", whole.correct),
        sum("margin", |m| m.margin),
        sum("chosen reward", |m| m.chosen_reward),
        sum("rejected reward", |m| m.rejected_reward),
        sum("chosen logprob", |m| m.chosen_logprob),
        sum("rejected logprob", |m| m.rejected_logprob),
        sum("entropy", |m| m.entropy),
        exact("no ratio", 0.0),
        exact("no ratio", 0.0),
        exact("pairs", whole.pairs),
        exact("tokens", whole.tokens),
        exact("not finite", whole.non_finite),
        exact("spare", 0.0),
        exact("spare", 0.0),
        exact("spare", 0.0),
    ]
}
