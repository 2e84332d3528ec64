//! Cases of `nn.bias_gradient`.

use crate::Result;
use crate::check::support::{token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::bias_gradient::{
    BiasGradientIo, bias_gradient, bias_gradient_partials_len,
};
use crate::reference::reduce::sum;

const BOUND: f64 = 1e-5;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, live, columns) in [
        (1, 1, 1),
        (1, 1, 8),
        (63, 63, 5),
        (64, 64, 4),
        (65, 65, 260),
        (130, 130, 257),
        (4097, 4097, 3),
        (200, 131, 12),
        (200, 128, 7),
        (200, 0, 12),
        // The values cancel to about a thousandth of their summed magnitudes.
        (1_000_000, 1_000_000, 1),
        (1_000_003, 1_000_000, 4),
        // More workgroups than a dimension of a dispatch takes, and as many columns.
        (3, 3, 4_194_305),
    ] {
        cases.push(case(rows, live, columns, Purpose::Answer));
    }
    cases.push(case(1024, 1024, 3072, Purpose::Timing));
    cases
}

fn case(rows: usize, live: usize, columns: usize, purpose: Purpose) -> Case {
    let name = format!("{live} of {rows}x{columns}");
    Case::new("nn.bias_gradient", name, purpose, move |gpu| {
        build(gpu, rows, live, columns)
    })
}

fn build(gpu: &Gpu, rows: usize, live: usize, columns: usize) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let (dy, before) = (values(1, rows * columns, 1.0), values(2, columns, 2.0));
    let scratch = bias_gradient_partials_len(rows, columns);
    let io = BiasGradientIo {
        dy: &trial.input("dy", &[rows, columns], &dy)?,
        dbias: &trial.output("dbias", &[columns], &before)?,
        partials: &trial.overwritten("partials", &[scratch])?,
        counts: Some(&token_counts(gpu, live)?),
    };
    bias_gradient(&mut trial.plan, &io, token_rows(rows, live), columns)?;
    let dy = wide(&dy[..live * columns]);
    let expected = (0..columns)
        .map(|n| {
            let column: Vec<f64> = dy.iter().skip(n).step_by(columns).copied().collect();
            f64::from(before[n]) + sum(&column)
        })
        .collect();
    trial.expect(io.dbias, expected, BOUND);
    Ok(trial)
}
