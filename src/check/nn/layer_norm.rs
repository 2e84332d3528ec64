//! Cases of `nn.layer_norm`.

use super::norm::{
    BOUND, EPS, Norm, Spec, expect_added, expect_input_gradient, input_gradient, inputs,
};
use crate::Result;
use crate::check::support::{expect_start, narrow, partly_written, token_counts, wide};
use crate::check::{Case, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormIo, LayerNormSizes, layer_norm_backward,
    layer_norm_forward, layer_norm_partials_len,
};
use crate::reference::nn::layer_norm as reference;

pub(super) fn cases() -> Vec<Case> {
    super::norm::cases(Norm {
        kernel: "nn.layer_norm",
        forward: build_forward,
        backward: build_backward,
    })
}

fn sizes(spec: Spec) -> LayerNormSizes {
    LayerNormSizes {
        rows: spec.size(),
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
    let dweight_before = values(6, columns, 2.0);
    let dbias_before = values(7, columns, 2.0);
    let dx = input_gradient(&mut trial, spec, input)?;
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
    expect_input_gradient(&mut trial, &dx, expected.dx, (spec, input))?;
    for (tensor, before, gradient) in [
        (io.dweight, dweight_before, expected.dweight),
        (io.dbias, dbias_before, expected.dbias),
    ] {
        expect_added(&mut trial, tensor, &before, &gradient);
    }
    Ok(trial)
}
