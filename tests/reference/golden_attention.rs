//! Attention against PyTorch's figures, of packed runs and of padded batches.

use prefgrad::reference::nn::attention::{Heads, Segment, attention_backward, attention_forward};

use crate::support::golden::{Case, cases};
use crate::support::tensors::Array;
use crate::{F64_BOUND, assert_close};

/// Takes the padding out of `[B, H, T, ...]`, which gives `[rows, H, ...]`.
fn pack(padded: &Array, lengths: &[u32]) -> Vec<f64> {
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

/// Puts the rows of q, k and v `[rows, heads, D]` side by side.
fn join(parts: [&[f64]; 3], rows: usize) -> Vec<f64> {
    let mut qkv = Vec::new();
    for row in 0..rows {
        for part in parts {
            let stride = part.len() / rows;
            qkv.extend(&part[row * stride..][..stride]);
        }
    }
    qkv
}

/// Checks a case whose arrays `packed` gives as `[rows, heads, ...]`.
fn assert_case(
    case: &Case,
    heads: Heads,
    segments: &[Segment],
    packed: impl Fn(&Array) -> Vec<f64>,
) {
    let rows = segments.iter().map(|segment| segment.len as usize).sum();
    let [q, k, v] = ["q", "k", "v"].map(|name| packed(case.input(name)));
    let qkv = join([&q, &k, &v], rows);
    let forward = attention_forward(&qkv, segments, heads);
    for (name, actual) in [("o", &forward.out), ("lse", &forward.lse)] {
        let what = format!("{} out.{name}", case.name);
        assert_close(&what, actual, &packed(case.output(name)), F64_BOUND);
    }
    let dout = packed(case.cotangent("o"));
    let dqkv = attention_backward(&qkv, segments, heads, &dout);
    let [dq, dk, dv] = ["q", "k", "v"].map(|name| packed(case.gradient(name)));
    // Each part is measured by itself, as their sizes differ.
    let width = heads.qkv_width();
    let k_at = heads.query * heads.width;
    let v_at = k_at + heads.key_value * heads.width;
    for (name, columns, expected) in [
        ("q", 0..k_at, dq),
        ("k", k_at..v_at, dk),
        ("v", v_at..width, dv),
    ] {
        let rows = dqkv.chunks(width);
        let actual: Vec<f64> = rows.flat_map(|row| row[columns.clone()].to_vec()).collect();
        let what = format!("{} grad.{name}", case.name);
        assert_close(&what, &actual, &expected, F64_BOUND);
    }
}

#[test]
fn attention_of_padded_batches() {
    for case in cases("attention", "")
        .iter()
        .filter(|case| case.has_input("lengths"))
    {
        let lengths = case.input("lengths").u32();
        let (q, k) = (&case.input("q").shape, &case.input("k").shape);
        let heads = Heads {
            query: q[1],
            key_value: k[1],
            width: q[3],
        };
        let mut segments = Vec::new();
        let mut start = 0;
        for &length in &lengths {
            segments.push(Segment::alone(start, length));
            start += length;
        }
        assert_case(case, heads, &segments, |array| pack(array, &lengths));
    }
}

#[test]
fn attention_of_packed_runs() {
    for case in cases("attention", "packed") {
        let (q, k) = (&case.input("q").shape, &case.input("k").shape);
        let heads = Heads {
            query: q[1],
            key_value: k[1],
            width: q[2],
        };
        let segments: Vec<Segment> = case
            .input("segments")
            .u32()
            .chunks_exact(4)
            .map(|s| Segment {
                start: s[0],
                len: s[1],
                prefix_start: s[2],
                prefix_len: s[3],
            })
            .collect();
        assert_case(&case, heads, &segments, Array::f64);
    }
}
