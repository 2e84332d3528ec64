//! Cases of `nn.swiglu`.

use crate::Result;
use crate::check::support::{expect_start, partly_written, token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::swiglu::{SwigluBackwardIo, SwigluIo, swiglu_backward, swiglu_forward};
use crate::reference::nn::swiglu as reference;

const BOUND: f64 = 1e-5;

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    columns: usize,
    /// The largest gate.
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
        (100, 100, 64, 120.0),
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
        rows: 2048,
        live: 2048,
        columns: 1024,
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
        Case::new("nn.swiglu", format!("forward {name}"), purpose, forward),
        Case::new("nn.swiglu", format!("backward {name}"), purpose, backward),
    ]
}

impl Spec {
    /// Gates up to `scale`, and ordinary numbers for them to let through.
    fn gate_up(self) -> Vec<f32> {
        let count = self.rows * self.columns;
        let (gate, up) = (values(1, count, self.scale), values(2, count, 2.0));
        let rows = gate.chunks(self.columns).zip(up.chunks(self.columns));
        rows.flat_map(|(gate, up)| [gate, up].concat()).collect()
    }
}

fn build_forward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let Spec { rows, columns, .. } = spec;
    let gate_up = spec.gate_up();
    let mut trial = Trial::new(gpu);
    let io = SwigluIo {
        gate_up: &trial.input("gate_up", &[rows, 2 * columns], &gate_up)?,
        y: &partly_written(&mut trial, "y", &[rows, columns])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    swiglu_forward(&mut trial.plan, &io, token_rows(spec.rows, spec.live))?;
    let gate_up = wide(&gate_up[..spec.live * 2 * columns]);
    let expected = reference::swiglu_forward(&gate_up, columns);
    expect_start(&mut trial, io.y, expected, BOUND)?;
    Ok(trial)
}

fn build_backward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let Spec { rows, columns, .. } = spec;
    let gate_up = spec.gate_up();
    let dy = values(3, rows * columns, 2.0);
    let mut trial = Trial::new(gpu);
    let io = SwigluBackwardIo {
        gate_up: &trial.input("gate_up", &[rows, 2 * columns], &gate_up)?,
        dy: &trial.input("dy", &[rows, columns], &dy)?,
        dgate_up: &partly_written(&mut trial, "dgate_up", &[rows, 2 * columns])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    swiglu_backward(&mut trial.plan, &io, token_rows(spec.rows, spec.live))?;
    let live = spec.live * columns;
    let (gate_up, dy) = (wide(&gate_up[..2 * live]), wide(&dy[..live]));
    let expected = reference::swiglu_backward(&gate_up, &dy, columns);
    expect_start(&mut trial, io.dgate_up, expected, BOUND)?;
    Ok(trial)
}
