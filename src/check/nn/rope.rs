//! Cases of `nn.rope`.

use crate::Result;
use crate::check::support::{token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::rope::{RopeIo, RopeSizes, Turn, rope, rope_table};
use crate::reference::nn::attention::Heads as ReferenceHeads;
use crate::reference::nn::rope as reference;

const BOUND: f64 = 1e-6;

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    /// Query heads, key/value heads, width.
    heads: (usize, usize, usize),
    /// The largest position; those of the rows lie all over the range.
    last: u32,
    theta: f64,
    scale: f64,
    magnitude: f32,
}

const PLAIN: Spec = Spec {
    rows: 0,
    live: 0,
    heads: (1, 1, 4),
    last: 0,
    theta: 1e4,
    scale: 1.0,
    magnitude: 1.0,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, live, heads, last) in [
        (1, 1, (1, 1, 4), 0),
        (7, 7, (2, 1, 4), 255),
        (9, 9, (3, 3, 12), 256),
        (33, 33, (6, 2, 64), 2047),
        (65, 40, (4, 2, 80), 300),
        (65, 0, (4, 1, 8), 300),
        (31, 31, (2, 1, 128), 130_000),
        (300_001, 300_001, (1, 1, 4), 5000),
    ] {
        let spec = Spec {
            rows,
            live,
            heads,
            last,
            ..PLAIN
        };
        cases.extend(both(spec, Purpose::Answer));
    }
    for (theta, scale, magnitude) in [(5e5, 1.0, 1.0), (1e6, 1.35, 1e4), (1e4, 0.5, 1e30)] {
        let spec = Spec {
            rows: 20,
            live: 20,
            heads: (4, 2, 32),
            last: 131_071,
            theta,
            scale,
            magnitude,
        };
        cases.extend(both(spec, Purpose::Answer));
    }
    let spec = Spec {
        rows: 2048,
        live: 2048,
        heads: (12, 4, 64),
        last: 2047,
        ..PLAIN
    };
    cases.extend(both(spec, Purpose::Timing));
    cases
}

fn both(spec: Spec, purpose: Purpose) -> [Case; 2] {
    let Spec {
        rows,
        live,
        heads: (query, key_value, width),
        last,
        theta,
        scale,
        magnitude,
    } = spec;
    let name = format!(
        "{live} of {rows} with {query} and {key_value} heads of {width} up to position {last}, \
         theta {theta} scale {scale} of {magnitude}"
    );
    [("forward", Turn::Forward), ("backward", Turn::Backward)].map(|(direction, turn)| {
        let name = format!("{direction} {name}");
        Case::new("nn.rope", name, purpose, move |gpu| build(gpu, spec, turn))
    })
}

impl Spec {
    fn positions(self) -> Vec<u32> {
        let draw = |x: f32| ((f64::from(x) + 1.0) / 2.0 * f64::from(self.last)) as u32;
        let mut positions: Vec<u32> = values(2, self.rows, 1.0).into_iter().map(draw).collect();
        positions[0] = self.last;
        positions
    }

    fn frequencies(self) -> Vec<f64> {
        let width = self.heads.2;
        let exponent = |i: usize| -2.0 * i as f64 / width as f64;
        (0..width / 2)
            .map(|i| self.theta.powf(exponent(i)))
            .collect()
    }
}

fn build(gpu: &Gpu, spec: Spec, turn: Turn) -> Result<Trial> {
    let (query, key_value, width) = spec.heads;
    let heads = Heads {
        query,
        key_value,
        width,
    };
    let shape = [spec.rows, heads.qkv_width()];
    let qkv = values(1, spec.rows * heads.qkv_width(), spec.magnitude);
    let (positions, frequencies) = (spec.positions(), spec.frequencies());
    let table = rope_table(&frequencies, spec.scale, spec.last as usize + 1);
    let mut trial = Trial::new(gpu);
    let io = RopeIo {
        qkv: &trial.output("qkv", &shape, &qkv)?,
        positions: &Tensor::from_slice(gpu, "positions", &[spec.rows], &positions)?,
        table: &trial.input("table", &[table.len() / width, width], &table)?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    let rows = token_rows(spec.rows, spec.live);
    rope(&mut trial.plan, &io, &RopeSizes { rows, heads }, turn)?;
    let live = spec.live * heads.qkv_width();
    let twin = match turn {
        Turn::Forward => reference::rope_forward,
        Turn::Backward => reference::rope_backward,
    };
    let heads = ReferenceHeads {
        query,
        key_value,
        width,
    };
    let (start, rest) = qkv.split_at(live);
    let positions = &positions[..spec.live];
    let expected = twin(&wide(start), positions, heads, &frequencies, spec.scale);
    let turned = io.qkv.window("qkv", 0, &[live])?;
    trial.expect(&turned, expected, BOUND);
    let after = io
        .qkv
        .window("qkv past the live rows", live, &[rest.len()])?;
    trial.expect(&after, wide(rest), 0.0);
    Ok(trial)
}
