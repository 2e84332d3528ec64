//! Attention against PyTorch's figures, of packed runs and of padded batches.

use prefgrad::check::nn::attention::Run;
use prefgrad::data::batch::Segment;
use prefgrad::kernels::nn::attention::Heads;
use prefgrad::reference::compare::{difference, f32_bound};

use crate::attention::{Layer, heads};
use crate::gpu::gpu;
use crate::support::golden::{self, Case};
use crate::support::tensors::Array;
use crate::tools::assert_close;

/// Takes the padding out of `[B, H, T, ...]`, which gives `[rows, H, ...]`.
fn unpad(padded: &Array, lengths: &[u32]) -> Vec<f64> {
    let [heads, positions] = [padded.shape[1], padded.shape[2]];
    let width: usize = padded.shape[3..].iter().product();
    let values = padded.f64();
    let mut packed = Vec::new();
    for (sequence, &length) in lengths.iter().enumerate() {
        for position in 0..length as usize {
            for head in 0..heads {
                let at = ((sequence * heads + head) * positions + position) * width;
                packed.extend(&values[at..at + width]);
            }
        }
    }
    packed
}

/// Columns of the query, key and value heads in a row of `qkv`.
fn parts(heads: Heads) -> [(&'static str, std::ops::Range<usize>); 3] {
    let k = heads.out_width();
    let v = k + heads.key_value * heads.width;
    [("q", 0..k), ("k", k..v), ("v", v..heads.qkv_width())]
}

fn assert_golden(case: &Case, run: &Run, heads: Heads, packed: impl Fn(&Array) -> Vec<f64>) {
    let gpu = gpu();
    let layer = Layer::new(gpu, run, heads);
    let mut qkv = vec![0.0; run.tokens * heads.qkv_width()];
    for (name, columns) in parts(heads) {
        let part = packed(case.input(name));
        for (row, part) in qkv
            .chunks_mut(heads.qkv_width())
            .zip(part.chunks(columns.len()))
        {
            for (to, from) in row[columns.clone()].iter_mut().zip(part) {
                *to = *from as f32;
            }
        }
    }
    let dout: Vec<f32> = packed(case.cotangent("o"))
        .iter()
        .map(|&x| x as f32)
        .collect();
    let [_, dqkv] = layer.run(gpu, &qkv, &dout);
    for (name, tensor) in [("o", &layer.out), ("lse", &layer.lse)] {
        let bound = f32_bound(case.torch_error(&format!("out.{name}")).unwrap_or(0.0));
        assert_close(gpu, &case.name, tensor, &packed(case.output(name)), bound);
    }
    for (name, columns) in parts(heads) {
        let expected = packed(case.gradient(name));
        let rows = dqkv.chunks(heads.qkv_width());
        let actual: Vec<f32> = rows.flat_map(|row| row[columns.clone()].to_vec()).collect();
        if expected.iter().all(|x| x.abs() < 1e-15) {
            // One key has all the weight: what is left of the terms, which are near 100.
            assert!(
                actual.iter().all(|x| x.abs() < 1e-4),
                "{} {name}",
                case.name
            );
            continue;
        }
        let bound = f32_bound(case.torch_error(&format!("grad.{name}")).unwrap_or(0.0));
        let difference = difference(&actual, &expected);
        assert!(
            difference.error <= bound,
            "{} grad.{name}: {difference}",
            case.name
        );
    }
}

#[test]
fn padded_batches_match_pytorch() {
    let padded = |case: &Case| case.has_input("lengths");
    for case in golden::cases("attention", "").iter().filter(|c| padded(c)) {
        let lengths = case.input("lengths").u32();
        let (q, k) = (&case.input("q").shape, &case.input("k").shape);
        let heads = heads(q[1], k[1], q[3]);
        if !heads.width.is_multiple_of(4) {
            continue;
        }
        let records: Vec<[u32; 1]> = lengths.iter().filter(|&&n| n > 0).map(|&n| [n]).collect();
        let records: Vec<(u32, &[u32])> = records.iter().map(|n| (0, n.as_slice())).collect();
        assert_golden(case, &Run::new(&records), heads, |x| unpad(x, &lengths));
    }
}

#[test]
fn packed_runs_match_pytorch() {
    let records: [&[(u32, &[u32])]; 2] = [
        &[(3, &[2, 4]), (0, &[5]), (1, &[1, 1, 1])],
        &[(34, &[7, 33, 1]), (2, &[3, 3]), (0, &[1])],
    ];
    for case in golden::cases("attention", "packed") {
        let (q, k) = (&case.input("q").shape, &case.input("k").shape);
        let run = records
            .map(Run::new)
            .into_iter()
            .find(|run| run.tokens == q[0]);
        let run = run.expect("a run of the case's length");
        let of_segment = |s: &Segment| [s.start, s.len, s.prefix_start, s.prefix_len];
        let segments: Vec<u32> = run.segments.iter().flat_map(of_segment).collect();
        assert_eq!(segments, case.input("segments").u32(), "{}", case.name);
        assert_golden(&case, &run, heads(q[1], k[1], q[2]), Array::f64);
    }
}
