//! Cases of `nn.layer_norm`.

use crate::Result;
use crate::check::support::{expect_start, narrow, partly_written, token_counts, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormIo, LayerNormSizes, layer_norm_backward,
    layer_norm_forward, layer_norm_partials_len,
};
use crate::kernels::{Count, Size};
use crate::reference::nn::layer_norm as reference;

const BOUND: f64 = 1e-5;
const EPS: f32 = 1e-5;

/// What the rows hold.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rows {
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
struct Spec {
    rows: usize,
    live: usize,
    columns: usize,
    kind: Rows,
}

pub(super) fn cases() -> Vec<Case> {
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
        cases.extend(both(spec, Purpose::Answer));
    }
    cases.push(Case::new(
        "nn.layer_norm",
        "forward in more workgroups than a dimension takes",
        Purpose::Answer,
        |gpu| build_forward(gpu, many_workgroups(gpu)),
    ));
    for (rows, columns) in [(1024, 768), (2048, 256)] {
        let spec = Spec {
            rows,
            live: rows,
            columns,
            kind: Rows::Unit,
        };
        cases.extend(both(spec, Purpose::Timing));
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

fn both(spec: Spec, purpose: Purpose) -> Vec<Case> {
    let Spec {
        rows,
        live,
        columns,
        kind,
    } = spec;
    let name = format!("{live} of {rows}x{columns} {kind:?}").to_lowercase();
    let backward = |input: InputGradient| {
        let name = format!("backward {input:?} {name}").to_lowercase();
        Case::new("nn.layer_norm", name, purpose, move |gpu| {
            build_backward(gpu, spec, input)
        })
    };
    vec![
        Case::new("nn.layer_norm", format!("forward {name}"), purpose, {
            move |gpu| build_forward(gpu, spec)
        }),
        backward(InputGradient::Overwrite),
        backward(InputGradient::Add),
    ]
}

fn inputs(spec: Spec) -> Vec<f32> {
    let len = spec.rows * spec.columns;
    match spec.kind {
        Rows::Unit => values(1, len, 1.0),
        Rows::Large => values(1, len, 1e4),
        Rows::Shifted => values(1, len, 1.0).iter().map(|x| x + 100.0).collect(),
        Rows::Constant => (0..len).map(|i| (i / spec.columns) as f32 * 0.7).collect(),
    }
}

fn sizes(spec: Spec) -> LayerNormSizes {
    LayerNormSizes {
        rows: if spec.live == spec.rows {
            Size::fixed(spec.rows)
        } else {
            Size::live(spec.rows, Count::Tokens)
        },
        columns: spec.columns,
        eps: EPS,
    }
}

fn build_forward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let mut trial = Trial::new(gpu);
    let x = inputs(spec);
    let (weight, bias) = (values(2, columns, 1.0), values(3, columns, 1.0));
    let io = LayerNormIo {
        x: &trial.input("x", &[rows, columns], &x)?,
        weight: &trial.input("weight", &[columns], &weight)?,
        bias: &trial.input("bias", &[columns], &bias)?,
        y: &partly_written(&mut trial, "y", &[rows, columns])?,
        mean: &partly_written(&mut trial, "mean", &[rows])?,
        rstd: &partly_written(&mut trial, "rstd", &[rows])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    layer_norm_forward(&mut trial.plan, &io, &sizes(spec))?;
    let x = &wide(&x)[..spec.live * columns];
    let expected = reference::layer_norm_forward(x, &wide(&weight), &wide(&bias), EPS.into());
    expect_start(&mut trial, io.y, expected.y, BOUND)?;
    expect_start(&mut trial, io.mean, expected.mean, BOUND)?;
    expect_start(&mut trial, io.rstd, expected.rstd, BOUND)?;
    Ok(trial)
}

fn build_backward(gpu: &Gpu, spec: Spec, input: InputGradient) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let mut trial = Trial::new(gpu);
    let (x, dy) = (inputs(spec), values(4, rows * columns, 3.0));
    let weight = values(2, columns, 1.0);
    let forward = reference::layer_norm_forward(&wide(&x), &wide(&weight), &wide(&weight), 1e-5);
    let (mean, rstd) = (narrow(&forward.mean), narrow(&forward.rstd));
    let dx_before = values(5, rows * columns, 2.0);
    let dweight_before = values(6, columns, 2.0);
    let dbias_before = values(7, columns, 2.0);
    let dx = match input {
        InputGradient::Overwrite => partly_written(&mut trial, "dx", &[rows, columns])?,
        InputGradient::Add => trial.output("dx", &[rows, columns], &dx_before)?,
    };
    let scratch = layer_norm_partials_len(rows, columns);
    let io = LayerNormBackwardIo {
        x: &trial.input("x", &[rows, columns], &x)?,
        weight: &trial.input("weight", &[columns], &weight)?,
        mean: &trial.input("mean", &[rows], &mean)?,
        rstd: &trial.input("rstd", &[rows], &rstd)?,
        dy: &trial.input("dy", &[rows, columns], &dy)?,
        dx: &dx,
        dweight: &trial.output("dweight", &[columns], &dweight_before)?,
        dbias: &trial.output("dbias", &[columns], &dbias_before)?,
        partials: &trial.overwritten("partials", &[scratch])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    layer_norm_backward(&mut trial.plan, &io, &sizes(spec), input)?;
    let expected = reference::layer_norm_backward(
        &wide(&x)[..spec.live * columns],
        &wide(&weight),
        &wide(&mean),
        &wide(&rstd),
        &wide(&dy)[..spec.live * columns],
    );
    match input {
        InputGradient::Overwrite => expect_start(&mut trial, &dx, expected.dx, BOUND)?,
        InputGradient::Add => {
            let mut expected_dx = wide(&dx_before);
            add(&mut expected_dx, &expected.dx);
            trial.expect(&dx, expected_dx, BOUND);
        }
    }
    for (tensor, before, gradient) in [
        (io.dweight, dweight_before, expected.dweight),
        (io.dbias, dbias_before, expected.dbias),
    ] {
        let mut after = wide(&before);
        add(&mut after, &gradient);
        trial.expect(tensor, after, BOUND);
    }
    Ok(trial)
}

fn add(sum: &mut [f64], addend: &[f64]) {
    for (sum, addend) in sum.iter_mut().zip(addend) {
        *sum += addend;
    }
}
