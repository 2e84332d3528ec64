//! What the cases of several kernels share.

use crate::Result;
use crate::check::Trial;
use crate::data::batch::Counts;
use crate::gpu::{Element, Gpu, Tensor};
use crate::kernels::{Count, Size};

/// What outputs hold before a plan that must leave some of them alone.
const UNTOUCHED: f32 = 9.0;

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Values as `f32` has them: inputs of both the kernel and its reference.
pub(super) fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// A size of `capacity`, of which `count` says how much is live unless all is.
pub(super) fn live_unless(all: bool, capacity: usize, count: Count) -> Size {
    match all {
        true => Size::fixed(capacity),
        false => Size::live(capacity, count),
    }
}

/// A size of `rows` packed tokens, of which `live` are live.
pub(super) fn token_rows(rows: usize, live: usize) -> Size {
    live_unless(live == rows, rows, Count::Tokens)
}

/// The counts of a batch of `tokens` packed tokens.
pub(super) fn token_counts(gpu: &Gpu, tokens: usize) -> Result<Tensor> {
    let counts = Counts {
        tokens: tokens as u32,
        ..Counts::default()
    };
    Tensor::from_slice(gpu, "counts", &[1], &[counts])
}

/// A tensor of which a plan with live sizes writes the first rows.
pub(super) fn partly_written(trial: &mut Trial, label: &str, shape: &[usize]) -> Result<Tensor> {
    let len = shape.iter().product();
    trial.output(label, shape, &vec![UNTOUCHED; len])
}

/// Expects `values` at the start of a tensor of [`partly_written`] and nothing written after them.
pub(super) fn expect_start(
    trial: &mut Trial,
    tensor: &Tensor,
    values: Vec<f64>,
    bound: f64,
) -> Result<()> {
    let (live, rest) = (values.len(), tensor.len() - values.len());
    let start = tensor.window(tensor.label(), 0, &[live])?;
    trial.expect(&start, values, bound);
    let after = format!("{} past the live rows", tensor.label());
    let after = tensor.window(&after, live, &[rest])?;
    trial.expect(&after, vec![f64::from(UNTOUCHED); rest], 0.0);
    Ok(())
}

/// A matrix of four-byte values as the structs that its rows are.
pub(super) fn structs<T: Element>(rows: &Tensor) -> Result<Tensor> {
    let buffer = rows.buffer().clone();
    let count = rows.bytes() as usize / size_of::<T>();
    Tensor::from_buffer::<T>(rows.label(), buffer, rows.offset_bytes(), &[count])
}
