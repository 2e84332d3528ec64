//! Rotary embedding against PyTorch, backward against forward, at far positions, and what is
//! refused.

use prefgrad::kernels::Size;
use prefgrad::kernels::nn::attention::Heads;
use prefgrad::kernels::nn::rope::{FINE, RopeIo, RopeSizes, Turn, rope, rope_table};
use prefgrad::reference::compare::{difference, f32_bound};
use prefgrad::{Error, Gpu, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden;
use crate::tools::{assert_same_bits, assert_values, exact, random, zeros};

/// What a rotary embedding is made of.
struct Rotary {
    frequencies: Vec<f64>,
    scale: f64,
    heads: Heads,
}

impl Rotary {
    fn new(theta: f64, scale: f64, query: usize, width: usize) -> Self {
        let exponent = |i: usize| -2.0 * i as f64 / width as f64;
        Self {
            frequencies: (0..width / 2).map(|i| theta.powf(exponent(i))).collect(),
            scale,
            heads: Heads {
                query,
                key_value: 1,
                width,
            },
        }
    }

    /// A table on the device for positions up to `last`.
    fn table(&self, gpu: &Gpu, last: u32) -> Tensor {
        let values = rope_table(&self.frequencies, self.scale, last as usize + 1);
        let width = self.heads.width;
        Tensor::from_slice(gpu, "table", &[values.len() / width, width], &values).unwrap()
    }

    /// Turns rows by their positions and reads them.
    fn turn(&self, gpu: &Gpu, rows: &[f64], positions: &[u32], turn: Turn) -> Vec<f32> {
        let shape = [positions.len(), self.heads.qkv_width()];
        let rows: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
        let qkv = Tensor::from_slice(gpu, "qkv", &shape, &rows).unwrap();
        let last = *positions.iter().max().unwrap();
        let io = RopeIo {
            qkv: &qkv,
            positions: &indices(gpu, positions),
            table: &self.table(gpu, last),
            counts: None,
        };
        let sizes = RopeSizes {
            rows: Size::fixed(positions.len()),
            heads: self.heads,
        };
        let mut plan = Plan::new(gpu);
        rope(&mut plan, &io, &sizes, turn).unwrap();
        plan.submit();
        qkv.read(gpu).unwrap()
    }
}

fn indices(gpu: &Gpu, positions: &[u32]) -> Tensor {
    Tensor::from_slice(gpu, "positions", &[positions.len()], positions).unwrap()
}

/// Packed rows of `x` [B, H, T, D], each with one key head, a copy of the first query head, and
/// one value head, that of `values`.
fn pack(x: &[f64], values: &[f64], [batch, heads, length, width]: [usize; 4]) -> Vec<f64> {
    let mut rows = Vec::new();
    for b in 0..batch {
        for t in 0..length {
            let at = |h: usize| ((b * heads + h) * length + t) * width;
            for h in (0..heads).chain([0]) {
                rows.extend(&x[at(h)..at(h) + width]);
            }
            rows.extend(&values[at(0)..at(0) + width]);
        }
    }
    rows
}

#[test]
fn pytorchs_figures() {
    let gpu = gpu();
    for case in golden::cases("rope", "") {
        let shape: [usize; 4] = case.input("x").shape.clone().try_into().unwrap();
        let rotary = Rotary::new(case.number("theta"), 1.0, shape[1], shape[3]);
        let positions = case.input("pos").u32();
        let gradient = case.gradient("x");
        for (name, turn, from, to) in [
            ("out.y", Turn::Forward, case.input("x"), case.output("y")),
            ("grad.x", Turn::Backward, case.cotangent("y"), gradient),
        ] {
            let (from, to) = (from.f64(), to.f64());
            let rows = pack(&from, &from, shape);
            let result = rotary.turn(gpu, &rows, &positions, turn);
            let difference = difference(&result, &pack(&to, &from, shape));
            let bound = f32_bound(case.torch_error(name).unwrap());
            assert!(
                difference.error <= bound,
                "{} {name}: {difference}",
                case.name
            );
        }
    }
}

#[test]
fn backward_turns_back_and_keeps_the_scale() {
    let rotary = Rotary::new(5e5, 1.5, 3, 32);
    let positions: Vec<u32> = (0..50).map(|i| i * i * 53).collect();
    let rows = exact(1, positions.len() * rotary.heads.qkv_width(), 1.0);
    let forth = rotary.turn(gpu(), &rows, &positions, Turn::Forward);
    let forth: Vec<f64> = forth.into_iter().map(f64::from).collect();
    assert!(difference(&forth, &rows).error > 0.5);
    let back = rotary.turn(gpu(), &forth, &positions, Turn::Backward);
    let turned = 4 * rotary.heads.width;
    let scaled = |(i, x): (usize, &f64)| {
        let is_value = i % rotary.heads.qkv_width() >= turned;
        if is_value { *x } else { 2.25 * x }
    };
    let expected: Vec<f64> = rows.iter().enumerate().map(scaled).collect();
    assert_values("back", &back, &expected);
}

/// What attention sees of positions: the product of a query and a key depends on how far they are
/// apart alone.
#[test]
fn products_depend_on_distances() {
    let rotary = Rotary::new(1e4, 1.0, 1, 64);
    let (query, key) = (exact(1, 64, 1.0), exact(2, 64, 1.0));
    let row = [query, key, vec![0.0; 64]].concat();
    let product = |of_query: u32, of_key: u32| {
        let rows = row.repeat(2);
        let rows = rotary.turn(gpu(), &rows, &[of_query, of_key], Turn::Forward);
        let (query, key) = (&rows[..64], &rows[3 * 64 + 64..][..64]);
        let products = query.iter().zip(key);
        products.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
    };
    let near: f64 = product(7, 3);
    for far in [250, 4000, 100_000] {
        let error = (product(far + 4, far) - near).abs();
        assert!(error < 2e-5, "at {far}: off by {error:e}");
    }
    let other: f64 = product(8, 3);
    assert!((other - near).abs() > 1e-2);
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let gpu = gpu();
    let rotary = Rotary::new(1e4, 1.0, 2, 8);
    let positions: Vec<u32> = (0..300).map(|i| i * 7).collect();
    let qkv = zeros(gpu, "qkv", &[300, rotary.heads.qkv_width()]);
    let rows: Vec<f32> = random(gpu, "rows", qkv.shape(), 1).read(gpu).unwrap();
    let io = RopeIo {
        qkv: &qkv,
        positions: &indices(gpu, &positions),
        table: &rotary.table(gpu, 2100),
        counts: None,
    };
    let sizes = RopeSizes {
        rows: Size::fixed(300),
        heads: rotary.heads,
    };
    let mut plan = Plan::new(gpu);
    rope(&mut plan, &io, &sizes, Turn::Forward).unwrap();
    assert_same_bits(&plan, &[&qkv], || qkv.write(gpu, &rows).unwrap());
}

#[test]
fn what_does_not_fit_is_named() {
    let gpu = gpu();
    let rotary = Rotary::new(1e4, 1.0, 2, 8);
    let sizes = RopeSizes {
        rows: Size::fixed(3),
        heads: rotary.heads,
    };
    let io = RopeIo {
        qkv: &zeros(gpu, "qkv", &[3, 32]),
        positions: &indices(gpu, &[0, 1, 2]),
        table: &rotary.table(gpu, 9),
        counts: None,
    };
    let mut plan = Plan::new(gpu);
    let mut refused = |io: &RopeIo<'_>, sizes: &RopeSizes, name: &str| {
        let error = rope(&mut plan, io, sizes, Turn::Forward).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(plan.is_empty());
    };
    let qkv = &zeros(gpu, "slim", &[3, 24]);
    refused(&RopeIo { qkv, ..io }, &sizes, "slim");
    let positions = &indices(gpu, &[0, 1]);
    refused(&RopeIo { positions, ..io }, &sizes, "positions");
    let positions = &zeros(gpu, "floats", &[3]);
    refused(&RopeIo { positions, ..io }, &sizes, "floats");
    let table = &zeros(gpu, "short", &[FINE, 8]);
    refused(&RopeIo { table, ..io }, &sizes, "short");
    let table = &zeros(gpu, "narrow", &[FINE + 1, 4]);
    refused(&RopeIo { table, ..io }, &sizes, "narrow");
    let mut odd = sizes;
    odd.heads.width = 6;
    refused(&io, &odd, "multiples of 4");
}
