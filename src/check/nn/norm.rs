//! What the cases of LayerNorm and RMSNorm share.

use crate::Result;
use crate::check::support::{expect_start, partly_written, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::Size;
use crate::kernels::nn::InputGradient;

pub(super) const BOUND: f64 = 1e-5;
pub(super) const EPS: f32 = 1e-5;

/// What the rows hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rows {
    /// Values in [-1, 1).
    Unit,
    /// Values in [-1e4, 1e4).
    Large,
    /// Values of about 100 that differ by 1.
    Shifted,
    /// One value all along the row: the variance is zero.
    Constant,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Spec {
    pub rows: usize,
    pub live: usize,
    pub columns: usize,
    kind: Rows,
}

impl Spec {
    /// The rows, live where they are not all.
    pub fn size(&self) -> Size {
        token_rows(self.rows, self.live)
    }
}

/// A norm, and what builds its trials.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    pub kernel: &'static str,
    pub forward: fn(&Gpu, Spec) -> Result<Trial>,
    pub backward: fn(&Gpu, Spec, InputGradient) -> Result<Trial>,
}

pub(super) fn cases(norm: Norm) -> Vec<Case> {
    let mut specs = Vec::new();
    for (rows, columns) in [
        (1, 1),
        (5, 1),
        (1, 4),
        (16, 32),
        (17, 33),
        (63, 127),
        (129, 36),
        (66, 768),
        (300, 8),
    ] {
        specs.push((rows, rows, columns, Rows::Unit));
    }
    for kind in [Rows::Large, Rows::Shifted, Rows::Constant] {
        specs.push((19, 19, 768, kind));
        specs.push((19, 19, 131, kind));
    }
    specs.push((200, 131, 20, Rows::Unit));
    specs.push((200, 1, 7, Rows::Unit));
    specs.push((200, 0, 20, Rows::Unit));
    let mut cases = Vec::new();
    for (rows, live, columns, kind) in specs {
        let spec = Spec {
            rows,
            live,
            columns,
            kind,
        };
        cases.extend(both(norm, spec, Purpose::Answer));
    }
    cases.push(Case::new(
        norm.kernel,
        "forward in more workgroups than a dimension takes",
        Purpose::Answer,
        move |gpu| (norm.forward)(gpu, many_workgroups(gpu)),
    ));
    for (rows, columns) in [(1024, 768), (2048, 256)] {
        let spec = Spec {
            rows,
            live: rows,
            columns,
            kind: Rows::Unit,
        };
        cases.extend(both(norm, spec, Purpose::Timing));
    }
    cases
}

/// 65,537 workgroups: of 16 rows each by subgroups, of one without them.
fn many_workgroups(gpu: &Gpu) -> Spec {
    let rows = if gpu.subgroups() {
        65_536 * 16 + 1
    } else {
        65_537
    };
    Spec {
        rows,
        live: rows,
        columns: 1,
        kind: Rows::Unit,
    }
}

fn both(norm: Norm, spec: Spec, purpose: Purpose) -> Vec<Case> {
    let Spec {
        rows,
        live,
        columns,
        kind,
    } = spec;
    let name = format!("{live} of {rows}x{columns} {kind:?}").to_lowercase();
    let backward = |input: InputGradient| {
        let name = format!("backward {input:?} {name}").to_lowercase();
        Case::new(norm.kernel, name, purpose, move |gpu| {
            (norm.backward)(gpu, spec, input)
        })
    };
    vec![
        Case::new(norm.kernel, format!("forward {name}"), purpose, {
            move |gpu| (norm.forward)(gpu, spec)
        }),
        backward(InputGradient::Overwrite),
        backward(InputGradient::Add),
    ]
}

pub(super) fn inputs(spec: Spec) -> Vec<f32> {
    let len = spec.rows * spec.columns;
    match spec.kind {
        Rows::Unit => values(1, len, 1.0),
        Rows::Large => values(1, len, 1e4),
        Rows::Shifted => values(1, len, 1.0).iter().map(|x| x + 100.0).collect(),
        Rows::Constant => (0..len).map(|i| (i / spec.columns) as f32 * 0.7).collect(),
    }
}

/// What dx holds before a backward pass that adds to it.
fn dx_before(spec: Spec) -> Vec<f32> {
    values(5, spec.rows * spec.columns, 2.0)
}

/// The tensor dx of a backward pass.
pub(super) fn input_gradient(
    trial: &mut Trial,
    spec: Spec,
    input: InputGradient,
) -> Result<Tensor> {
    let shape = [spec.rows, spec.columns];
    match input {
        InputGradient::Overwrite => partly_written(trial, "dx", &shape),
        InputGradient::Add => trial.output("dx", &shape, &dx_before(spec)),
    }
}

/// Expects the gradient of the live rows in the tensor of [`input_gradient`].
pub(super) fn expect_input_gradient(
    trial: &mut Trial,
    dx: &Tensor,
    gradient: Vec<f64>,
    (spec, input): (Spec, InputGradient),
) -> Result<()> {
    match input {
        InputGradient::Overwrite => expect_start(trial, dx, gradient, BOUND),
        InputGradient::Add => {
            expect_added(trial, dx, &dx_before(spec), &gradient);
            Ok(())
        }
    }
}

/// Expects a gradient added to what its tensor held before.
pub(super) fn expect_added(trial: &mut Trial, tensor: &Tensor, before: &[f32], gradient: &[f64]) {
    let mut after = wide(before);
    for (after, gradient) in after.iter_mut().zip(gradient) {
        *after += gradient;
    }
    trial.expect(tensor, after, BOUND);
}
