//! Cases of `policy.whiten`.

use super::rollout::Structs;
use crate::Result;
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::Experience;
use crate::kernels::policy::whiten::{WhitenIo, WhitenOptions, partial_rows, whiten};
use crate::reference::policy::whiten as reference;

const BOUND: f64 = 1e-5;

#[derive(Debug, Clone)]
struct Shape {
    columns: usize,
    /// Entries of each row in use.
    lens: Vec<u32>,
    /// Advantages lie in ± `scale` around `offset`.
    scale: f32,
    offset: f32,
    /// Every how many entries one weighs 0.
    masked: usize,
    shift_mean: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |columns, lens: &[u32]| Shape {
        columns,
        lens: lens.to_vec(),
        scale: 3.0,
        offset: 1.5,
        masked: 7,
        shift_mean: true,
    };
    let mut cases = Vec::new();
    for shift_mean in [true, false] {
        let of = |columns, lens| Shape {
            shift_mean,
            ..plain(columns, lens)
        };
        let shapes = [
            of(5, &[0, 0]),
            // All weights 0, one entry, two.
            Shape {
                masked: 1,
                ..of(5, &[5, 3])
            },
            of(3, &[0, 2]),
            of(3, &[1, 2]),
            of(200, &[200, 1, 0, 129, 127, 128]),
            of(4099, &[4099, 2048, 2049, 17]),
        ];
        cases.extend(shapes.map(|shape| case(shape, Purpose::Answer)));
    }
    for (scale, offset) in [(1e-3, 0.0), (1e4, 1e4), (1.0, 30.0)] {
        let shape = Shape {
            scale,
            offset,
            ..plain(1000, &[1000, 700, 3])
        };
        cases.push(case(shape, Purpose::Answer));
    }
    let million = 1_000_000;
    cases.push(case(plain(million, &[million as u32]), Purpose::Answer));
    // More workgroups than a dimension of a dispatch takes.
    cases.push(case(plain(2, &vec![2; 65_600]), Purpose::Answer));
    cases.push(case(plain(8192, &[8192; 16]), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let lens = match shape.lens.len() {
        0..10 => format!("{:?}", shape.lens),
        many => format!("{many}x{}", shape.lens[0]),
    };
    let name = format!(
        "{lens} of {}, within {:e} of {}, one in {} masked, shift {}",
        shape.columns, shape.scale, shape.offset, shape.masked, shape.shift_mean
    );
    Case::new("policy.whiten", name, purpose, move |gpu| {
        build(gpu, &shape)
    })
}

fn build(gpu: &Gpu, shape: &Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let (rows, columns) = (shape.lens.len(), shape.columns);
    let advantages = values(1, rows * columns, shape.scale);
    let mut expected: Vec<Experience> = advantages
        .iter()
        .enumerate()
        .map(|(i, x)| Experience {
            logprob: 5.0,
            value: 6.0,
            advantage: x + shape.offset,
            returns: 7.0,
            weight: match (i + 1).is_multiple_of(shape.masked) {
                true => 0.0,
                false => -0.5,
            },
            ..Experience::default()
        })
        .collect();
    let experience = Structs::output(&mut trial, "experience", &[rows, columns], &expected)?;
    let lens = Tensor::from_slice(gpu, "lens", &[rows], &shape.lens)?;
    let partials = trial.overwritten("partials", &[partial_rows(rows, columns), 4])?;
    let options = WhitenOptions {
        shift_mean: shape.shift_mean,
        ..WhitenOptions::default()
    };
    let io = WhitenIo {
        experience: &experience.tensor,
        lens: &lens,
        partials: &partials,
    };
    whiten(&mut trial.plan, &io, &options)?;

    let used: Vec<usize> = (0..rows)
        .flat_map(|m| (m * columns..).take(shape.lens[m] as usize))
        .collect();
    let x: Vec<f64> = used.iter().map(|&i| expected[i].advantage.into()).collect();
    let counted: Vec<bool> = used.iter().map(|&i| expected[i].weight != 0.0).collect();
    let y = reference::whiten(&x, &counted, shape.shift_mean, options.eps.into());
    for (&i, y) in used.iter().zip(y) {
        expected[i].advantage = y as f32;
    }
    experience.expect(&mut trial, &expected, &[(3, BOUND)]);
    Ok(trial)
}
