//! What the cases of kernels with a language-model head share.

use super::{Trial, values};
use crate::Result;
use crate::data::batch::{NONE, RowList, Target};
use crate::gpu::Tensor;
use crate::kernels::nn::language_head::HeadWindow;

#[derive(Debug, Clone, Copy)]
pub(super) enum Inputs {
    /// Random in ± this.
    Within(f32),
    /// Whole numbers whose products are exact: logits up to ±2e4.
    Extreme,
}

impl Inputs {
    /// `len` values; extreme ones are multiples of `step`.
    pub(super) fn values(self, seed: u64, len: usize, step: f32) -> Vec<f32> {
        match self {
            Self::Within(scale) => values(seed, len, scale),
            Self::Extreme => values(seed, len, 16.0)
                .iter()
                .map(|x| x.round() * step)
                .collect(),
        }
    }
}

/// Targets sorted by row; some rows have several, some none, and some weights are zero.
pub(super) fn targets(count: usize, tokens: usize, vocab: usize) -> Vec<Target> {
    let index = |x: f32, len: usize| (((x + 1.0) * 0.5 * len as f32) as usize).min(len - 1) as u32;
    let weights = values(13, count, 1.0);
    let mut rows: Vec<u32> = values(11, count, 1.0)
        .iter()
        .map(|&x| index(x, tokens))
        .collect();
    rows.sort_unstable();
    let tokens = values(12, count, 1.0);
    (0..count)
        .map(|n| Target {
            row: rows[n],
            token: index(tokens[n], vocab),
            answer: NONE,
            weight: if n % 7 == 3 { 0.0 } else { 1.25 + weights[n] },
        })
        .collect()
}

/// One list for each row with targets.
pub(super) fn lists(targets: &[Target]) -> Vec<RowList> {
    let mut lists: Vec<RowList> = Vec::new();
    for (n, target) in (0..).zip(targets) {
        match lists.last_mut() {
            Some(list) if list.id == target.row => list.end = n + 1,
            _ => lists.push(RowList {
                id: target.row,
                start: n,
                end: n + 1,
                pad: 0,
            }),
        }
    }
    lists
}

/// A window of a head, with its gradient.
pub(super) struct Window {
    pub(super) weight: Tensor,
    pub(super) dweight: Tensor,
    pub(super) first_row: usize,
}

impl Window {
    /// Windows of `rows` rows each.
    pub(super) fn split(
        trial: &mut Trial,
        (head, dhead): (&[f32], &[f32]),
        rows: &[usize],
        width: usize,
    ) -> Result<Vec<Self>> {
        let mut windows = Vec::new();
        let mut first_row = 0;
        for &rows in rows {
            let range = first_row * width..(first_row + rows) * width;
            windows.push(Self {
                weight: trial.input("head", &[rows, width], &head[range.clone()])?,
                dweight: trial.output("dhead", &[rows, width], &dhead[range])?,
                first_row,
            });
            first_row += rows;
        }
        Ok(windows)
    }

    pub(super) fn borrowed(windows: &[Self]) -> Vec<HeadWindow<'_>> {
        let windows = windows.iter();
        windows
            .map(|window| HeadWindow {
                weight: &window.weight,
                dweight: Some(&window.dweight),
                first_row: window.first_row,
            })
            .collect()
    }

    /// Expects each window's part of `sums` added to what its gradient held `before`.
    pub(super) fn expect(
        trial: &mut Trial,
        windows: &[Self],
        sums: &[f64],
        before: &[f32],
        (width, bound): (usize, f64),
    ) {
        for window in windows {
            let first = window.first_row * width;
            let before = before[first..].iter().map(|&x| f64::from(x));
            let sums = sums[first..][..window.dweight.len()].iter();
            let sums = sums.zip(before).map(|(sum, before)| sum + before).collect();
            trial.expect(&window.dweight, sums, bound);
        }
    }
}
