//! Whitening of advantages: PyTorch's figures, what constants become, the same bits twice, and
//! what is refused.

use prefgrad::check::values;
use prefgrad::kernels::policy::Experience;
use prefgrad::kernels::policy::whiten::{WhitenIo, WhitenOptions, partial_rows, whiten};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::cases;
use crate::tools::assert_values;

/// What becomes of advantages, `columns` a row, of which `mask` says which count.
fn run(x: &[f32], mask: &[f32], columns: usize, options: &WhitenOptions) -> Vec<f32> {
    let entries: Vec<Experience> = x
        .iter()
        .zip(mask)
        .map(|(&advantage, &weight)| Experience {
            advantage,
            weight,
            ..Experience::default()
        })
        .collect();
    let rows = x.len() / columns;
    let experience = Tensor::from_slice(gpu(), "experience", &[rows, columns], &entries).unwrap();
    let lens = vec![columns as u32; rows];
    let io = WhitenIo {
        experience: &experience,
        lens: &Tensor::from_slice(gpu(), "lens", &[rows], &lens).unwrap(),
        partials: &scratch(rows, columns),
    };
    let mut plan = Plan::new(gpu());
    whiten(&mut plan, &io, options).unwrap();
    plan.submit();
    let out: Vec<Experience> = experience.read(gpu()).unwrap();
    out.iter().map(|entry| entry.advantage).collect()
}

fn scratch(rows: usize, columns: usize) -> Tensor {
    Tensor::zeros::<f32>(gpu(), "partials", &[partial_rows(rows, columns), 4]).unwrap()
}

#[test]
fn equals_pytorch() {
    for case in cases("whiten", "") {
        let (x, mask) = (case.input("x"), case.input("mask"));
        let options = WhitenOptions {
            shift_mean: !case.name.ends_with("_shift0"),
            eps: case.number("eps") as f32,
        };
        let y = run(&x.f32(), &mask.f32(), x.shape[1], &options);
        assert_values(&case.name, &y, &case.output("y").f64());
    }
}

#[test]
fn equal_advantages_become_zero_or_stay() {
    // A sum of these does not divide back exactly.
    let x = [0.1; 3000];
    let shifted = run(&x, &x, 1500, &WhitenOptions::default());
    assert!(shifted.iter().all(|y| y.abs() < 1e-6), "{}", shifted[0]);
    let options = WhitenOptions {
        shift_mean: false,
        ..WhitenOptions::default()
    };
    let kept = run(&x, &x, 1500, &options);
    assert!(kept.iter().all(|y| (y - 0.1).abs() < 1e-6), "{}", kept[0]);
}

#[test]
fn what_weighs_nothing_is_not_even_read() {
    let (mut x, mut mask) = (values(1, 10, 1.0), vec![1.0; 10]);
    let options = WhitenOptions::default();
    mask[4] = 0.0;
    x[4] = f32::NAN;
    let with = run(&x, &mask, 10, &options);
    x[4] = -7.0;
    assert_eq!(run(&x, &mask, 10, &options), with);
    assert_eq!(with[4], 0.0);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let x = values(1, 20_000, 3.0);
    let mask = vec![1.0; x.len()];
    let bits = || -> Vec<u32> {
        let y = run(&x, &mask, 5000, &WhitenOptions::default());
        y.iter().map(|y| y.to_bits()).collect()
    };
    assert_eq!(bits(), bits());
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut plan = Plan::new(gpu());
    let experience = Tensor::zeros::<Experience>(gpu(), "experience", &[2, 10]).unwrap();
    let lens = Tensor::zeros::<u32>(gpu(), "lens", &[2]).unwrap();
    let partials = scratch(2, 10);
    let mut refused = |io: &WhitenIo<'_>, eps: f32, word: &str| {
        let options = WhitenOptions {
            eps,
            ..WhitenOptions::default()
        };
        let error = whiten(&mut plan, io, &options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let io = WhitenIo {
        experience: &experience,
        lens: &lens,
        partials: &partials,
    };
    for eps in [0.0, -1.0, f32::NAN] {
        refused(&io, eps, "eps");
    }
    let flat = experience.reshape(&[20]).unwrap();
    refused(
        &WhitenIo {
            experience: &flat,
            ..io
        },
        1e-8,
        "two dimensions",
    );
    let short = Tensor::zeros::<u32>(gpu(), "short", &[1]).unwrap();
    refused(&WhitenIo { lens: &short, ..io }, 1e-8, "short");
    let small = scratch(1, 10);
    refused(
        &WhitenIo {
            partials: &small,
            ..io
        },
        1e-8,
        "partials",
    );
    assert!(plan.is_empty());
}
