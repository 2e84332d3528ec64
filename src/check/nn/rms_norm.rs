//! Cases of `nn.rms_norm`.

use super::norm::{
    BOUND, EPS, Norm, Spec, expect_added, expect_input_gradient, input_gradient, inputs,
};
use crate::Result;
use crate::check::support::{expect_start, narrow, partly_written, token_counts, wide};
use crate::check::{Case, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::rms_norm::{
    InputGradient, RmsNormBackwardIo, RmsNormIo, RmsNormSizes, rms_norm_backward, rms_norm_forward,
    rms_norm_partials_len,
};
use crate::reference::nn::rms_norm as reference;

pub(super) fn cases() -> Vec<Case> {
    super::norm::cases(Norm {
        kernel: "nn.rms_norm",
        forward: build_forward,
        backward: build_backward,
    })
}

/// A row of one value has the gradient `rstd g (1 - n²)`, where n is ±1 unless eps counts: f32
/// can't tell the difference with [`EPS`].
fn eps(spec: Spec) -> f32 {
    if spec.columns == 1 { 0.25 } else { EPS }
}

fn sizes(spec: Spec) -> RmsNormSizes {
    RmsNormSizes {
        rows: spec.size(),
        columns: spec.columns,
        eps: eps(spec),
    }
}

fn build_forward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let mut trial = Trial::new(gpu);
    let x = inputs(spec);
    let weight = values(2, columns, 1.0);
    let io = RmsNormIo {
        x: &trial.input("x", &[rows, columns], &x)?,
        weight: &trial.input("weight", &[columns], &weight)?,
        y: &partly_written(&mut trial, "y", &[rows, columns])?,
        rstd: &partly_written(&mut trial, "rstd", &[rows])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    rms_norm_forward(&mut trial.plan, &io, &sizes(spec))?;
    let x = &wide(&x)[..spec.live * columns];
    let expected = reference::rms_norm_forward(x, &wide(&weight), eps(spec).into());
    expect_start(&mut trial, io.y, expected.y, BOUND)?;
    expect_start(&mut trial, io.rstd, expected.rstd, BOUND)?;
    Ok(trial)
}

fn build_backward(gpu: &Gpu, spec: Spec, input: InputGradient) -> Result<Trial> {
    let (rows, columns) = (spec.rows, spec.columns);
    let mut trial = Trial::new(gpu);
    let (x, dy) = (inputs(spec), values(4, rows * columns, 3.0));
    let weight = values(2, columns, 1.0);
    let forward = reference::rms_norm_forward(&wide(&x), &wide(&weight), eps(spec).into());
    let rstd = narrow(&forward.rstd);
    let dweight_before = values(6, columns, 2.0);
    let dx = input_gradient(&mut trial, spec, input)?;
    let scratch = rms_norm_partials_len(rows, columns);
    let io = RmsNormBackwardIo {
        x: &trial.input("x", &[rows, columns], &x)?,
        weight: &trial.input("weight", &[columns], &weight)?,
        rstd: &trial.input("rstd", &[rows], &rstd)?,
        dy: &trial.input("dy", &[rows, columns], &dy)?,
        dx: &dx,
        dweight: &trial.output("dweight", &[columns], &dweight_before)?,
        partials: &trial.overwritten("partials", &[scratch])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    rms_norm_backward(&mut trial.plan, &io, &sizes(spec), input)?;
    let expected = reference::rms_norm_backward(
        &wide(&x)[..spec.live * columns],
        &wide(&weight),
        &wide(&rstd),
        &wide(&dy)[..spec.live * columns],
    );
    expect_input_gradient(&mut trial, &dx, expected.dx, (spec, input))?;
    expect_added(&mut trial, io.dweight, &dweight_before, &expected.dweight);
    Ok(trial)
}
