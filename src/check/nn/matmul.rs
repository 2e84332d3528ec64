//! Cases of `nn.matmul`.

use crate::Result;
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, MatmulDesign};
use crate::kernels::Size;
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use crate::reference::nn::gelu::{Gelu, gelu_backward, gelu_forward};
use crate::reference::nn::matmul as reference;

const BOUND: f64 = 1e-5;
/// Of [`MatmulDesign::Cooperative`], which rounds both operands to f16: a product of two numbers is
/// off by up to 2^-10, and a sum of products by as much of the sum of their sizes.
const ROUNDED_BOUND: f64 = 1e-3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Store,
    Add,
    Bias,
    Residual,
    BiasResidual,
    BiasGelu,
    GeluBackward,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let sizes = [
        (1, 1, 1),
        (3, 7, 5),
        (8, 8, 8),
        (17, 9, 33),
        (64, 64, 64),
        (63, 65, 66),
        (70, 65, 67),
        (128, 48, 80),
        (5, 257, 131),
        (70, 300, 20),
    ];
    for layout in [Layout::Nn, Layout::Nt, Layout::Tn] {
        for (m, n, k) in sizes {
            cases.push(case(layout, m, n, k, Kind::Store, Purpose::Answer));
        }
        cases.push(case(layout, 512, 512, 512, Kind::Store, Purpose::Timing));
    }
    // Results of several tiles, with edges, and rows of whole fours.
    for (layout, kind) in [
        (Layout::Nn, Kind::Bias),
        (Layout::Nt, Kind::Add),
        (Layout::Tn, Kind::Store),
    ] {
        cases.push(case(layout, 196, 132, 76, kind, Purpose::Answer));
    }
    // What is stored does not depend on how the operands are: one layout for rows of whole fours,
    // another for others.
    for (kind, fours, others) in [
        (Kind::Add, Layout::Tn, Layout::Nn),
        (Kind::Bias, Layout::Nn, Layout::Nt),
        (Kind::Residual, Layout::Nt, Layout::Nn),
        (Kind::BiasResidual, Layout::Nn, Layout::Tn),
        (Kind::BiasGelu, Layout::Nn, Layout::Nt),
        (Kind::GeluBackward, Layout::Nt, Layout::Tn),
    ] {
        cases.push(case(fours, 36, 76, 20, kind, Purpose::Answer));
        cases.push(case(others, 37, 75, 19, kind, Purpose::Answer));
    }
    // Long dot products of a small result, which one design splits.
    for (layout, m, n, k, kind) in [
        (Layout::Nn, 33, 20, 2100, Kind::Store),
        (Layout::Nt, 5, 70, 2051, Kind::BiasGelu),
        (Layout::Tn, 36, 40, 2560, Kind::Add),
        (Layout::Tn, 67, 3, 2049, Kind::BiasResidual),
    ] {
        cases.push(case(layout, m, n, k, kind, Purpose::Answer));
    }
    // A small GPT's projections: of activations, of the gradient of an output, of weights.
    for (layout, m, n, k) in [
        (Layout::Nn, 2048, 256, 768),
        (Layout::Nt, 2048, 768, 256),
        (Layout::Tn, 256, 768, 2048),
    ] {
        cases.push(case(layout, m, n, k, Kind::Store, Purpose::Timing));
    }
    // More rows of tiles than a dimension of a dispatch takes.
    cases.push(case(
        Layout::Nn,
        65_537 * 64,
        1,
        1,
        Kind::Store,
        Purpose::Answer,
    ));
    cases
}

fn case(layout: Layout, m: usize, n: usize, k: usize, kind: Kind, purpose: Purpose) -> Case {
    let name = format!("{layout:?} {m}x{n}x{k} {kind:?}").to_lowercase();
    Case::new("nn.matmul", name, purpose, move |gpu| {
        build(gpu, layout, (m, n, k), kind)
    })
}

fn build(gpu: &Gpu, layout: Layout, (m, n, k): (usize, usize, usize), kind: Kind) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let (a, b) = (values(1, m * k, 1.0), values(2, k * n, 1.0));
    let (bias, like) = (values(3, n, 1.0), values(4, m * n, 2.0));
    let a_shape = if layout == Layout::Tn { [k, m] } else { [m, k] };
    let b_shape = if layout == Layout::Nt { [n, k] } else { [k, n] };
    let a_tensor = trial.input("a", &a_shape, &a)?;
    let b_tensor = trial.input("b", &b_shape, &b)?;
    let bias_tensor = trial.input("bias", &[n], &bias)?;
    let like_tensor = match kind {
        Kind::BiasGelu => trial.overwritten("pre", &[m, n])?,
        _ => trial.input("like", &[m, n], &like)?,
    };
    let out = match kind {
        Kind::Add => trial.output("out", &[m, n], &like)?,
        _ => trial.overwritten("out", &[m, n])?,
    };
    let epilogue = match kind {
        Kind::Store => Epilogue::Store,
        Kind::Add => Epilogue::Add,
        Kind::Bias => Epilogue::Bias { bias: &bias_tensor },
        Kind::Residual => Epilogue::Residual {
            residual: &like_tensor,
        },
        Kind::BiasResidual => Epilogue::BiasResidual {
            bias: &bias_tensor,
            residual: &like_tensor,
        },
        Kind::BiasGelu => Epilogue::BiasGelu {
            bias: &bias_tensor,
            pre: &like_tensor,
        },
        Kind::GeluBackward => Epilogue::GeluBackward { pre: &like_tensor },
    };
    matmul(
        &mut trial.plan,
        &MatmulIo {
            a: Matrix::whole(&a_tensor),
            b: Matrix::whole(&b_tensor),
            out: Matrix::whole(&out),
            epilogue,
            counts: None,
        },
        &MatmulSizes {
            layout,
            m: Size::fixed(m),
            n,
            k: Size::fixed(k),
        },
    )?;
    // Others are computed without rounding.
    let fours = a_shape[1].is_multiple_of(4) && b_shape[1].is_multiple_of(4);
    let bound = match gpu.matmul_design() {
        MatmulDesign::Cooperative if fours => ROUNDED_BOUND,
        _ => BOUND,
    };
    let product = reference::matmul(&wide(&a), &wide(&b), reference_layout(layout), m, n, k);
    let with_bias = |i: usize| product[i] + f64::from(bias[i % n]);
    let expected: Vec<f64> = (0..m * n)
        .map(|i| {
            let like = f64::from(like[i]);
            match kind {
                Kind::Store => product[i],
                Kind::Add | Kind::Residual => product[i] + like,
                Kind::Bias => with_bias(i),
                Kind::BiasResidual => with_bias(i) + like,
                Kind::BiasGelu => gelu_forward(&[with_bias(i)], Gelu::Tanh)[0],
                Kind::GeluBackward => gelu_backward(&[like], &[product[i]], Gelu::Tanh)[0],
            }
        })
        .collect();
    if kind == Kind::BiasGelu {
        trial.expect(&like_tensor, (0..m * n).map(with_bias).collect(), bound);
    }
    trial.expect(&out, expected, bound);
    Ok(trial)
}

fn reference_layout(layout: Layout) -> reference::Layout {
    match layout {
        Layout::Nn => reference::Layout::NN,
        Layout::Nt => reference::Layout::NT,
        Layout::Tn => reference::Layout::TN,
    }
}
