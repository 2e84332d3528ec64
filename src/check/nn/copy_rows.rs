//! Cases of `nn.copy_rows`.

use crate::Result;
use crate::check::support::{token_counts, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::copy_rows::{CopyRowsIo, RowCopy, copy_rows};
use crate::kernels::{Count, Size};
use crate::reference::nn::copy_rows as reference;

/// What the rows that nothing is copied to hold.
const BEFORE: f32 = 5.0;

#[derive(Clone, Copy)]
struct Spec {
    name: &'static str,
    /// Rows and columns of the source.
    rows: (usize, usize),
    column: usize,
    width: usize,
    out_rows: usize,
    copies: &'static [(u32, u32)],
    /// Of `copies`, those that are made.
    live: usize,
    purpose: Purpose,
}

const PLAIN: Spec = Spec {
    name: "",
    rows: (0, 0),
    column: 0,
    width: 0,
    out_rows: 0,
    copies: &[],
    live: 0,
    purpose: Purpose::Answer,
};

pub(super) fn cases() -> Vec<Case> {
    let specs = [
        Spec {
            name: "keys and values of three rows into a cache of ten",
            rows: (5, 60),
            column: 36,
            width: 24,
            out_rows: 10,
            copies: &[(0, 9), (4, 0), (2, 5)],
            live: 3,
            ..PLAIN
        },
        Spec {
            name: "columns that four do not divide",
            rows: (4, 9),
            column: 2,
            width: 5,
            out_rows: 6,
            copies: &[(3, 1), (3, 4), (0, 0)],
            live: 3,
            ..PLAIN
        },
        Spec {
            name: "the live copies only",
            rows: (6, 8),
            column: 0,
            width: 8,
            out_rows: 4,
            copies: &[(5, 2), (1, 0), (2, 1), (0, 3)],
            live: 2,
            ..PLAIN
        },
        Spec {
            name: "no live copy",
            rows: (2, 8),
            column: 4,
            width: 4,
            out_rows: 2,
            copies: &[(0, 0)],
            live: 0,
            ..PLAIN
        },
    ];
    let mut cases: Vec<Case> = specs
        .into_iter()
        .map(|spec| {
            Case::new("nn.copy_rows", spec.name, spec.purpose, move |gpu| {
                build(gpu, spec)
            })
        })
        .collect();
    cases.push(Case::new(
        "nn.copy_rows",
        "2048 rows of 1536 out of 2304",
        Purpose::Timing,
        |gpu| {
            let copies: Vec<(u32, u32)> = (0..2048).map(|row| (row, 2047 - row)).collect();
            let spec = Spec {
                rows: (2048, 2304),
                column: 768,
                width: 1536,
                out_rows: 2048,
                live: 2048,
                purpose: Purpose::Timing,
                ..PLAIN
            };
            build_with(gpu, spec, &copies)
        },
    ));
    cases
}

fn build(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    build_with(gpu, spec, spec.copies)
}

fn build_with(gpu: &Gpu, spec: Spec, copies: &[(u32, u32)]) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let (rows, stride) = spec.rows;
    let source = values(1, rows * stride, 1.0);
    let before = vec![BEFORE; spec.out_rows * spec.width];
    let table: Vec<RowCopy> = copies
        .iter()
        .map(|&(source, destination)| RowCopy {
            source,
            destination,
        })
        .collect();
    let table = Tensor::from_slice(gpu, "copies", &[table.len()], &table)?;
    let input = trial.input("rows", &[rows, stride], &source)?;
    let out = trial.output("out", &[spec.out_rows, spec.width], &before)?;
    let io = CopyRowsIo {
        rows: &input,
        column: spec.column,
        copies: &table,
        out: &out,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    let size = Size::live(copies.len(), Count::Tokens);
    copy_rows(&mut trial.plan, &io, size)?;
    let mut expected = wide(&before);
    let live: Vec<(usize, usize)> = copies[..spec.live]
        .iter()
        .map(|&(source, destination)| (source as usize, destination as usize))
        .collect();
    reference::copy_rows(
        &wide(&source),
        stride,
        spec.column,
        &live,
        &mut expected,
        spec.width,
    );
    trial.expect(&out, expected, 0.0);
    Ok(trial)
}
