//! Cases of `nn.attention_decode`.

use crate::Result;
use crate::check::support::{expect_start, partly_written, token_counts, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::attention_decode::{
    AttentionDecodeIo, AttentionDecodeSizes, Sequence, attention_decode,
};
use crate::kernels::{Count, Size};
use crate::reference::nn::attention as twin;
use crate::reference::nn::attention_decode as reference;

const BOUND: f64 = 1e-5;

/// Prefix start and length, own start and length.
type Rows = (u32, u32, u32, u32);

#[derive(Clone)]
struct Spec {
    name: &'static str,
    sequences: Vec<Rows>,
    /// H, G, D.
    heads: (usize, usize, usize),
    /// Factor of the queries, whose values otherwise lie within 1.
    query_scale: f32,
    /// Sequences that the plan has room for beyond these.
    spare: usize,
    purpose: Purpose,
}

impl Spec {
    fn new(name: &'static str, heads: (usize, usize, usize), sequences: &[Rows]) -> Self {
        Self {
            name,
            sequences: sequences.to_vec(),
            heads,
            query_scale: 1.0,
            spare: 0,
            purpose: Purpose::Answer,
        }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let shared = [
        (3, 20, 50, 1),
        (3, 20, 60, 9),
        (30, 11, 80, 17),
        (0, 1, 49, 1),
    ];
    let steps = [
        (0, 31, 200, 1),
        (0, 32, 200, 1),
        (0, 63, 200, 1),
        (5, 64, 200, 1),
        (0, 100, 150, 28),
        (7, 100, 150, 29),
    ];
    let mut specs = vec![
        Spec::new("one key", (2, 2, 16), &[(0, 0, 3, 1), (2, 1, 0, 0)]),
        Spec::new("a prompt for two, width 16", (2, 2, 16), &shared),
        Spec::new("H=4 G=2", (4, 2, 16), &shared),
        Spec::new("H=3 G=1, width 12", (3, 1, 12), &shared),
        Spec::new("width 4", (3, 3, 4), &shared),
        Spec::new("width 64", (2, 2, 64), &shared),
        Spec::new("H=2 G=1, width 80", (2, 1, 80), &shared),
        Spec::new("width 128", (1, 1, 128), &shared),
        Spec::new("around the step's size", (2, 1, 16), &steps),
        Spec {
            query_scale: 1e4,
            ..Spec::new("large scores", (2, 1, 16), &shared)
        },
        Spec {
            spare: 13,
            ..Spec::new("room to spare", (3, 3, 16), &shared)
        },
    ];
    let many: Vec<Rows> = (0..32).map(|b| (0, 128, 128 + 128 * b, 128)).collect();
    specs.push(Spec {
        purpose: Purpose::Timing,
        ..Spec::new(
            "32 sequences x 4 heads x 256 keys, width 64",
            (4, 4, 64),
            &many,
        )
    });
    specs
        .into_iter()
        .map(|spec| {
            Case::new("nn.attention_decode", spec.name, spec.purpose, move |gpu| {
                build(gpu, &spec)
            })
        })
        .collect()
}

fn build(gpu: &Gpu, spec: &Spec) -> Result<Trial> {
    let (query, key_value, width) = spec.heads;
    let heads = Heads {
        query,
        key_value,
        width,
    };
    let live = spec.sequences.len();
    let batch = live + spec.spare;
    let ends = spec.sequences.iter().map(|s| (s.0 + s.1).max(s.2 + s.3));
    let cache_rows = ends.max().unwrap_or(0) as usize;
    let cache_width = 2 * key_value * width;
    let mut qkv = values(1, batch * heads.qkv_width(), 1.0);
    for row in qkv.chunks_mut(heads.qkv_width()) {
        let queries = &mut row[..heads.out_width()];
        queries.iter_mut().for_each(|q| *q *= spec.query_scale);
    }
    let cache = values(2, cache_rows * cache_width, 1.0);
    let sequences: Vec<Sequence> = spec
        .sequences
        .iter()
        .map(|&(prefix_start, prefix_len, start, len)| Sequence {
            prefix_start,
            prefix_len,
            start,
            len,
            ..Sequence::default()
        })
        .collect();
    let mut trial = Trial::new(gpu);
    let out = partly_written(&mut trial, "out", &[batch, heads.out_width()])?;
    let table = Tensor::zeros::<Sequence>(gpu, "sequences", &[batch])?;
    table.write(gpu, &sequences)?;
    let io = AttentionDecodeIo {
        qkv: &trial.input("qkv", &[batch, heads.qkv_width()], &qkv)?,
        cache: &trial.input("cache", &[cache_rows, cache_width], &cache)?,
        sequences: &table,
        out: &out,
        counts: Some(&token_counts(gpu, live)?),
    };
    let seen: u32 = spec.sequences.iter().map(|s| s.1 + s.3).sum();
    let sizes = AttentionDecodeSizes {
        sequences: Size::live(batch, Count::Tokens),
        heads,
        context: seen as usize / live,
    };
    attention_decode(&mut trial.plan, &io, &sizes)?;
    let rows: Vec<reference::Sequence> = sequences
        .iter()
        .map(|s| reference::Sequence {
            prefix_start: s.prefix_start as usize,
            prefix_len: s.prefix_len as usize,
            start: s.start as usize,
            len: s.len as usize,
        })
        .collect();
    let heads = twin::Heads {
        query,
        key_value,
        width,
    };
    let expected = reference::attention_decode(&wide(&qkv), &wide(&cache), &rows, heads);
    expect_start(&mut trial, &out, expected, BOUND)?;
    Ok(trial)
}
