//! Cases of `optim.adamw`.

use crate::Result;
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::optim::adamw::{AdamWHyper, AdamWIo, AdamWOptions, adamw};
use crate::reference::optim::adamw as reference;

const BOUND: f64 = 1e-5;
const OPTIONS: AdamWOptions = AdamWOptions {
    lr: 3e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
};

#[derive(Debug, Clone, Copy)]
struct Shape {
    len: usize,
    decayed: usize,
    step: u64,
    /// Gradients lie in ± this.
    scale: f32,
    coefficient: f32,
    finite: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |len, decayed| Shape {
        len,
        decayed,
        step: 3,
        scale: 0.5,
        coefficient: 1.0,
        finite: true,
    };
    let mut cases = Vec::new();
    for (len, decayed) in [
        (4, 0),
        (64, 64),
        (1020, 512),
        (1024, 0),
        (1028, 1028),
        (9000, 4096),
        // Software drivers take it in two windows.
        ((1 << 20) + 1028, (1 << 20) + 512),
    ] {
        cases.push(case(plain(len, decayed), Purpose::Answer));
    }
    for (step, scale, coefficient) in [
        (1, 1.0, 1.0),
        (1, 1e-8, 1.0),
        (100_000, 1.0, 0.25),
        (7, 1e3, 1e-4),
        (2, 1e30, 1e-30),
        (2, 0.0, 1.0),
    ] {
        let shape = Shape {
            step,
            scale,
            coefficient,
            ..plain(516, 256)
        };
        cases.push(case(shape, Purpose::Answer));
    }
    let skipped = Shape {
        finite: false,
        ..plain(516, 256)
    };
    cases.push(case(skipped, Purpose::Answer));
    cases.push(case(plain(5 << 20, 4 << 20), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let Shape {
        len,
        decayed,
        step,
        scale,
        coefficient,
        finite,
    } = shape;
    let name = format!(
        "{len} ({decayed} decayed), step {step}, gradients within {scale:e} times {coefficient:e}, finite {finite}"
    );
    Case::new("optim.adamw", name, purpose, move |gpu| build(gpu, shape))
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let len = shape.len;
    let param = values(1, len, 1.0);
    let grads = values(2, len, shape.scale);
    let size = shape.scale * shape.coefficient;
    let mut m = values(3, len, size);
    let mut v: Vec<f32> = values(4, len, size).iter().map(|x| x * x).collect();
    // What has decayed to next to nothing counts as zero.
    (m[0], v[0]) = (-9e-31, 9e-36);
    (m[1], v[1]) = (1e-40, 1e-40);
    let flag = if shape.finite { 0.0 } else { 1.0 };
    let stats = [2.0, shape.coefficient, flag, 0.0];
    let tensors = [
        trial.output("params", &[len], &param)?,
        trial.output("grads", &[len], &grads)?,
        trial.output("m", &[len], &m)?,
        trial.output("v", &[len], &v)?,
    ];
    let stats = trial.input("stats", &[4], &stats)?;
    let hyper = AdamWHyper::new(&OPTIONS, shape.step);
    let hyper = Tensor::from_slice(gpu, "hyper", &[1], &[hyper])?;
    let io = AdamWIo {
        params: &tensors[0],
        grads: &tensors[1],
        m: &tensors[2],
        v: &tensors[3],
        stats: &stats,
        hyper: &hyper,
    };
    adamw(&mut trial.plan, &io, shape.decayed)?;

    let (mut param, grads) = (wide(&param), wide(&grads));
    let (mut m, mut v) = (wide(&m), wide(&v));
    let bound = if shape.finite { BOUND } else { 0.0 };
    if shape.finite {
        m[..2].fill(0.0);
        v[..2].fill(0.0);
        step(
            &shape,
            0..shape.decayed,
            (&mut param, &grads, &mut m, &mut v),
        );
        step(
            &shape,
            shape.decayed..len,
            (&mut param, &grads, &mut m, &mut v),
        );
    }
    for (tensor, values) in tensors.iter().zip([param, vec![0.0; len], m, v]) {
        trial.expect(tensor, values, bound);
    }
    Ok(trial)
}

type State<'a> = (&'a mut [f64], &'a [f64], &'a mut [f64], &'a mut [f64]);

fn step(shape: &Shape, range: std::ops::Range<usize>, (param, grads, m, v): State<'_>) {
    let decays = range.start < shape.decayed;
    let options = reference::AdamW {
        lr: OPTIONS.lr,
        beta1: OPTIONS.beta1,
        beta2: OPTIONS.beta2,
        eps: OPTIONS.eps,
        weight_decay: if decays { OPTIONS.weight_decay } else { 0.0 },
        step: shape.step as i32,
        gradient_scale: shape.coefficient.into(),
    };
    reference::adamw(
        &options,
        &mut param[range.clone()],
        &grads[range.clone()],
        &mut m[range.clone()],
        &mut v[range],
    );
}
