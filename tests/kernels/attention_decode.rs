//! Attention to a cache: against attention over a packed run, in other company, and what is
//! refused; copies of rows that are refused.

use prefgrad::check::values;
use prefgrad::data::batch::{Segment, TILE_ROWS, Tile};
use prefgrad::kernels::Size;
use prefgrad::kernels::nn::attention::{
    AttentionForwardIo, AttentionSizes, Heads, attention_forward,
};
use prefgrad::kernels::nn::attention_decode::{
    AttentionDecodeIo, AttentionDecodeSizes, Sequence, attention_decode,
};
use prefgrad::kernels::nn::copy_rows::{CopyRowsIo, RowCopy, copy_rows};
use prefgrad::{Gpu, Plan, Result, Tensor};

use crate::gpu::{gpu, gpu_without_subgroups};
use crate::tools::{assert_same_bits, zeros};

const HEADS: Heads = Heads {
    query: 4,
    key_value: 2,
    width: 16,
};

fn sequence(prefix: (u32, u32), own: (u32, u32)) -> Sequence {
    Sequence {
        prefix_start: prefix.0,
        prefix_len: prefix.1,
        start: own.0,
        len: own.1,
        ..Sequence::default()
    }
}

fn decode(
    plan: &mut Plan,
    [qkv, cache, out]: [&Tensor; 3],
    sequences: &[Sequence],
    heads: Heads,
) -> Result<()> {
    let count = sequences.len();
    let sequences = Tensor::from_slice(plan.gpu(), "sequences", &[count], sequences)?;
    let io = AttentionDecodeIo {
        qkv,
        cache,
        sequences: &sequences,
        out,
        counts: None,
    };
    let sizes = AttentionDecodeSizes {
        sequences: Size::fixed(count),
        heads,
        context: 64,
    };
    attention_decode(plan, &io, &sizes)
}

/// A prompt of 40 rows and two answers of 30 and 7, one row after the other from the cache, and
/// all at once.
fn check_against_packed(gpu: &Gpu) {
    let rows = 77;
    let qkv = values(3, rows * HEADS.qkv_width(), 1.0);
    let packed = Tensor::from_slice(gpu, "qkv", &[rows, HEADS.qkv_width()], &qkv).unwrap();
    let segment = |start, len, prefix_len, query_end| Segment {
        start,
        len,
        prefix_len,
        query_end,
        ..Segment::default()
    };
    let segments = [
        segment(0, 40, 0, 77),
        segment(40, 30, 40, 70),
        segment(70, 7, 40, 77),
    ];
    let mut tiles = Vec::new();
    for (index, s) in (0..).zip(&segments) {
        let rows = (s.start..s.start + s.len).step_by(TILE_ROWS as usize);
        tiles.extend(rows.map(|row| Tile {
            segment: index,
            row,
        }));
    }
    let expected = zeros(gpu, "out", &[rows, HEADS.out_width()]);
    let mut plan = Plan::new(gpu);
    let io = AttentionForwardIo {
        qkv: &packed,
        segments: &Tensor::from_slice(gpu, "segments", &[3], &segments).unwrap(),
        tiles: &Tensor::from_slice(gpu, "tiles", &[tiles.len()], &tiles).unwrap(),
        counts: None,
        out: &expected,
        lse: &zeros(gpu, "lse", &[rows, HEADS.query]),
    };
    let sizes = AttentionSizes {
        tokens: rows,
        tiles: Size::fixed(tiles.len()),
        heads: HEADS,
        attended: 0,
    };
    attention_forward(&mut plan, &io, &sizes).unwrap();

    let cache_width = 2 * HEADS.key_value * HEADS.width;
    let cache = zeros(gpu, "cache", &[rows, cache_width]);
    let in_place: Vec<RowCopy> = (0..rows as u32)
        .map(|row| RowCopy {
            source: row,
            destination: row,
        })
        .collect();
    let io = CopyRowsIo {
        rows: &packed,
        column: HEADS.out_width(),
        copies: &Tensor::from_slice(gpu, "copies", &[rows], &in_place).unwrap(),
        out: &cache,
        counts: None,
    };
    copy_rows(&mut plan, &io, Size::fixed(rows)).unwrap();
    let sequences: Vec<Sequence> = segments
        .iter()
        .flat_map(|s| (1..=s.len).map(|len| sequence((0, s.prefix_len), (s.start, len))))
        .collect();
    let out = zeros(gpu, "decoded", &[rows, HEADS.out_width()]);
    decode(&mut plan, [&packed, &cache, &out], &sequences, HEADS).unwrap();
    plan.submit();
    let expected: Vec<f32> = expected.read(gpu).unwrap();
    let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
    crate::tools::assert_values("decoded", &out.read::<f32>(gpu).unwrap(), &expected);
}

#[test]
fn a_row_at_a_time_equals_all_at_once() {
    check_against_packed(gpu());
    check_against_packed(gpu_without_subgroups());
}

fn check_company(gpu: &Gpu) {
    let (batch, cache_rows) = (11, 150);
    let cache_width = 2 * HEADS.key_value * HEADS.width;
    let rows = values(5, batch * HEADS.qkv_width(), 1.0);
    let cache = Tensor::from_slice(
        gpu,
        "cache",
        &[cache_rows, cache_width],
        &values(6, cache_rows * cache_width, 1.0),
    )
    .unwrap();
    let sequences: Vec<Sequence> = (0..batch as u32)
        .map(|b| sequence((b, 13 * b % 70), (80 + b, 1 + 5 * b)))
        .collect();
    let run = |order: &[usize]| -> Vec<Vec<u32>> {
        let qkv: Vec<f32> = order
            .iter()
            .flat_map(|&b| rows[b * HEADS.qkv_width()..][..HEADS.qkv_width()].to_vec())
            .collect();
        let shape = [order.len(), HEADS.qkv_width()];
        let qkv = Tensor::from_slice(gpu, "qkv", &shape, &qkv).unwrap();
        let out = zeros(gpu, "out", &[order.len(), HEADS.out_width()]);
        let chosen: Vec<Sequence> = order.iter().map(|&b| sequences[b]).collect();
        let mut plan = Plan::new(gpu);
        decode(&mut plan, [&qkv, &cache, &out], &chosen, HEADS).unwrap();
        assert_same_bits(&plan, &[&out], || ());
        let values: Vec<f32> = out.read(gpu).unwrap();
        values
            .chunks(HEADS.out_width())
            .map(|row| row.iter().map(|x| x.to_bits()).collect())
            .collect()
    };
    let all = run(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let back = run(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(all, back.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(all[4..5], run(&[4]));
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company() {
    check_company(gpu());
    check_company(gpu_without_subgroups());
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let one = [sequence((0, 1), (1, 1))];
    let run = |qkv: usize, cache: usize, out: usize, width: usize| {
        let heads = Heads { width, ..HEADS };
        let tensors = [
            zeros(gpu(), "qkv", &[1, qkv]),
            zeros(gpu(), "cache", &[4, cache]),
            zeros(gpu(), "out", &[1, out]),
        ];
        decode(&mut Plan::new(gpu()), tensors.each_ref(), &one, heads)
    };
    run(128, 64, 64, 16).unwrap();
    for (result, name) in [
        (run(127, 64, 64, 16), "qkv"),
        (run(128, 65, 64, 16), "cache"),
        (run(128, 64, 32, 16), "out"),
        (run(40, 20, 20, 5), "multiples of 4"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn copies_that_do_not_fit_are_refused_by_name() {
    let run = |column: usize, width: usize, copies: usize| {
        let io = CopyRowsIo {
            rows: &zeros(gpu(), "source", &[3, 12]),
            column,
            copies: &Tensor::zeros::<RowCopy>(gpu(), "copies", &[copies]).unwrap(),
            out: &zeros(gpu(), "out", &[3, width]),
            counts: None,
        };
        copy_rows(&mut Plan::new(gpu()), &io, Size::fixed(2))
    };
    run(4, 8, 2).unwrap();
    for (result, name) in [(run(5, 8, 2), "source"), (run(4, 8, 1), "copies")] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
