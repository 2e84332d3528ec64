//! Cases of `nn.gelu`.

use crate::Result;
use crate::check::support::{expect_start, partly_written, token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::gelu::{GeluBackwardIo, GeluIo, gelu_backward, gelu_forward};
use crate::reference::nn::gelu as reference;

const BOUND: f64 = 1e-5;

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    columns: usize,
    scale: f32,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, live, columns, scale) in [
        (1, 1, 1, 3.0),
        (1, 1, 1023, 3.0),
        (1, 1, 1025, 3.0),
        (33, 33, 127, 6.0),
        (17, 17, 260, 6.0),
        (100, 100, 64, 0.01),
        (100, 100, 64, 1e4),
        (10, 10, 13, 1e30),
        (100, 71, 12, 3.0),
        (100, 71, 7, 3.0),
        (100, 0, 12, 3.0),
        (1, 1, 4_000_001, 3.0),
    ] {
        let spec = Spec {
            rows,
            live,
            columns,
            scale,
        };
        cases.extend(both(spec, Purpose::Answer));
    }
    let spec = Spec {
        rows: 1024,
        live: 1024,
        columns: 2048,
        scale: 3.0,
    };
    cases.extend(both(spec, Purpose::Timing));
    cases
}

fn both(spec: Spec, purpose: Purpose) -> [Case; 2] {
    let Spec {
        rows,
        live,
        columns,
        scale,
    } = spec;
    let name = format!("{live} of {rows}x{columns} to {scale}");
    let forward = move |gpu: &Gpu| build_forward(gpu, spec);
    let backward = move |gpu: &Gpu| build_backward(gpu, spec);
    [
        Case::new("nn.gelu", format!("forward {name}"), purpose, forward),
        Case::new("nn.gelu", format!("backward {name}"), purpose, backward),
    ]
}

fn build_forward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let shape = [spec.rows, spec.columns];
    let x = values(1, spec.rows * spec.columns, spec.scale);
    let mut trial = Trial::new(gpu);
    let io = GeluIo {
        x: &trial.input("x", &shape, &x)?,
        y: &partly_written(&mut trial, "y", &shape)?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    gelu_forward(&mut trial.plan, &io, token_rows(spec.rows, spec.live))?;
    let x = wide(&x[..spec.live * spec.columns]);
    let expected = reference::gelu_forward(&x, reference::Gelu::Tanh);
    expect_start(&mut trial, io.y, expected, BOUND)?;
    Ok(trial)
}

fn build_backward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let shape = [spec.rows, spec.columns];
    let x = values(1, spec.rows * spec.columns, spec.scale);
    let dy = values(2, spec.rows * spec.columns, 2.0);
    let mut trial = Trial::new(gpu);
    let io = GeluBackwardIo {
        x: &trial.input("x", &shape, &x)?,
        dy: &trial.input("dy", &shape, &dy)?,
        dx: &partly_written(&mut trial, "dx", &shape)?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    gelu_backward(&mut trial.plan, &io, token_rows(spec.rows, spec.live))?;
    let live = spec.live * spec.columns;
    let (x, dy) = (wide(&x[..live]), wide(&dy[..live]));
    let expected = reference::gelu_backward(&x, &dy, reference::Gelu::Tanh);
    expect_start(&mut trial, io.dx, expected, BOUND)?;
    Ok(trial)
}
