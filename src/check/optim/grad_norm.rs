//! Cases of `optim.grad_norm`.

use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::optim::grad_norm::{GradNormIo, grad_norm, partial_rows};
use crate::reference::optim::grad_norm as reference;

const BOUND: f64 = 1e-5;
/// Steps skipped before.
const SKIPPED: f32 = 5.0;

#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Lengths of the pieces.
    pieces: &'static [usize],
    scale: f32,
    max_norm: Option<f32>,
    /// Written over an element of the last piece.
    planted: Option<f32>,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |pieces| Shape {
        pieces,
        scale: 1.0,
        max_norm: Some(1.0),
        planted: None,
    };
    let mut cases = Vec::new();
    let lists: [&[usize]; 6] = [
        &[4],
        &[252, 260],
        &[16_384, 16_388, 64],
        &[100_004],
        // Software drivers take it in two windows.
        &[(1 << 20) + 20_004, 8],
        &[0, 8],
    ];
    for pieces in lists {
        cases.push(case(plain(pieces), Purpose::Answer));
    }
    for scale in [
        0.0, 1e-12, 1e-3, 1e12, 3e13, 1e15, 1e18, 1e19, 1e25, 1e30, 1e35,
    ] {
        for max_norm in [Some(0.5), None] {
            let shape = Shape {
                scale,
                max_norm,
                ..plain(&[5_000, 1_000])
            };
            cases.push(case(shape, Purpose::Answer));
        }
    }
    for planted in [1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let shape = Shape {
            planted: Some(planted),
            ..plain(&[5_000, 1_000])
        };
        cases.push(case(shape, Purpose::Answer));
    }
    cases.push(case(plain(&[1 << 22, 1 << 20]), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let Shape {
        pieces,
        scale,
        max_norm,
        planted,
    } = shape;
    let name = format!("{pieces:?} within {scale:e}, to {max_norm:?}, planted {planted:?}");
    Case::new("optim.grad_norm", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let mut pieces = Vec::new();
    for (seed, &len) in shape.pieces.iter().enumerate() {
        pieces.push(values(seed as u64, len, shape.scale));
    }
    if let (Some(value), Some(last)) = (shape.planted, pieces.last_mut()) {
        let middle = last.len() / 2;
        last[middle] = value;
    }
    let mut tensors = Vec::new();
    for piece in &pieces {
        tensors.push(trial.input("grads", &[piece.len()], piece)?);
    }
    let grads: Vec<&Tensor> = tensors.iter().collect();
    let rows = shape.pieces.iter().map(|&len| partial_rows(len)).sum();
    let partials = trial.overwritten("partials", &[rows, 4])?;
    let stats = trial.output("stats", &[4], &[9.0, 9.0, 9.0, SKIPPED])?;
    let io = GradNormIo {
        grads: &grads,
        partials: &partials,
        stats: &stats,
    };
    grad_norm(&mut trial.plan, &io, shape.max_norm)?;

    let finite: Vec<Vec<f64>> = pieces
        .iter()
        .map(|piece| piece.iter().filter(|x| x.is_finite()).map(|&x| x.into()))
        .map(Iterator::collect)
        .collect();
    let norm = reference::global_norm(&finite.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let coefficient = match shape.max_norm {
        Some(max_norm) => reference::clip_coefficient(norm, max_norm.into()),
        None => 1.0,
    };
    let bad = pieces.iter().flatten().any(|x| !x.is_finite());
    let flag = f64::from(u8::from(bad));
    let figures = [
        ("norm", norm, BOUND),
        ("coefficient", coefficient, BOUND),
        ("not finite", flag, 0.0),
        ("skipped", f64::from(SKIPPED) + flag, 0.0),
    ];
    for (column, (name, value, bound)) in figures.into_iter().enumerate() {
        trial.expect(&stats.window(name, column, &[1])?, vec![value], bound);
    }
    Ok(trial)
}
