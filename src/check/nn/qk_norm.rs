//! Cases of `nn.qk_norm`.

use super::norm::{BOUND, EPS, expect_added};
use crate::Result;
use crate::check::support::{expect_start, partly_written, token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::nn::attention::Heads;
use crate::kernels::nn::qk_norm::{
    QkNormBackwardIo, QkNormIo, QkNormSizes, qk_norm_backward, qk_norm_forward,
    qk_norm_partials_len,
};
use crate::reference::nn::attention as reference_attention;
use crate::reference::nn::qk_norm as reference;

/// What the heads hold.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Values {
    /// Values in [-1, 1).
    Unit,
    /// Values in [-1e4, 1e4).
    Large,
    /// Heads of zeros.
    Zero,
}

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    heads: Heads,
    kind: Values,
}

fn spec(rows: usize, live: usize, heads: (usize, usize, usize), kind: Values) -> Spec {
    let (query, key_value, width) = heads;
    Spec {
        rows,
        live,
        heads: Heads {
            query,
            key_value,
            width,
        },
        kind,
    }
}

pub(super) fn cases() -> Vec<Case> {
    use Values::{Large, Unit, Zero};
    let answers = [
        spec(1, 1, (1, 1, 4), Unit),
        spec(5, 5, (3, 1, 12), Unit),
        spec(17, 17, (4, 2, 64), Unit),
        spec(33, 33, (6, 6, 80), Unit),
        spec(129, 129, (14, 2, 64), Unit),
        spec(64, 64, (4, 4, 128), Unit),
        // 129 chunks of query heads: more than one block of them.
        spec(16_400, 16_400, (2, 1, 4), Unit),
        spec(19, 19, (4, 1, 128), Large),
        spec(19, 19, (2, 2, 36), Large),
        spec(7, 7, (2, 1, 20), Zero),
        spec(200, 131, (5, 1, 20), Unit),
        spec(200, 1, (4, 2, 8), Unit),
        spec(200, 0, (2, 2, 16), Unit),
    ];
    let timings = [
        spec(2048, 2048, (9, 3, 64), Unit),
        spec(1024, 1024, (16, 8, 128), Unit),
    ];
    let answers = answers
        .into_iter()
        .flat_map(|spec| both(spec, Purpose::Answer));
    let timings = timings
        .into_iter()
        .flat_map(|spec| both(spec, Purpose::Timing));
    answers.chain(timings).collect()
}

fn both(spec: Spec, purpose: Purpose) -> [Case; 2] {
    let Heads {
        query,
        key_value,
        width,
    } = spec.heads;
    let (rows, live, kind) = (spec.rows, spec.live, spec.kind);
    let name = format!("{live} of {rows} rows, {query}+{key_value} heads of {width} {kind:?}");
    let name = name.to_lowercase();
    [
        Case::new("nn.qk_norm", format!("forward {name}"), purpose, {
            move |gpu| build_forward(gpu, spec)
        }),
        Case::new("nn.qk_norm", format!("backward {name}"), purpose, {
            move |gpu| build_backward(gpu, spec)
        }),
    ]
}

fn inputs(spec: Spec) -> Vec<f32> {
    let len = spec.rows * spec.heads.qkv_width();
    match spec.kind {
        Values::Unit => values(1, len, 1.0),
        Values::Large => values(1, len, 1e4),
        Values::Zero => vec![0.0; len],
    }
}

/// The gradient of y: as small in the value columns as that of x in the others, so that one
/// measure of error does for both.
fn incoming(spec: Spec) -> Vec<f32> {
    let width = spec.heads.qkv_width();
    let normalised = (spec.heads.query + spec.heads.key_value) * spec.heads.width;
    let scale = if spec.kind == Values::Large {
        1e-4
    } else {
        1.0
    };
    let mut dy = values(4, spec.rows * width, 3.0);
    for row in dy.chunks_exact_mut(width) {
        row[normalised..].iter_mut().for_each(|dy| *dy *= scale);
    }
    dy
}

fn sizes(spec: Spec) -> QkNormSizes {
    QkNormSizes {
        rows: token_rows(spec.rows, spec.live),
        heads: spec.heads,
        eps: EPS,
    }
}

fn reference_heads(heads: Heads) -> reference_attention::Heads {
    reference_attention::Heads {
        query: heads.query,
        key_value: heads.key_value,
        width: heads.width,
    }
}

fn build_forward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let shape = [spec.rows, spec.heads.qkv_width()];
    let width = spec.heads.width;
    let mut trial = Trial::new(gpu);
    let x = inputs(spec);
    let (query_weight, key_weight) = (values(2, width, 1.0), values(3, width, 1.0));
    let io = QkNormIo {
        x: &trial.input("x", &shape, &x)?,
        query_weight: &trial.input("query_weight", &[width], &query_weight)?,
        key_weight: &trial.input("key_weight", &[width], &key_weight)?,
        y: &partly_written(&mut trial, "y", &shape)?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    qk_norm_forward(&mut trial.plan, &io, &sizes(spec))?;
    let y = reference::qk_norm_forward(
        &wide(&x)[..spec.live * shape[1]],
        &wide(&query_weight),
        &wide(&key_weight),
        reference_heads(spec.heads),
        EPS.into(),
    );
    expect_start(&mut trial, io.y, y, BOUND)?;
    Ok(trial)
}

fn build_backward(gpu: &Gpu, spec: Spec) -> Result<Trial> {
    let shape = [spec.rows, spec.heads.qkv_width()];
    let width = spec.heads.width;
    let mut trial = Trial::new(gpu);
    let (x, dy) = (inputs(spec), incoming(spec));
    let (query_weight, key_weight) = (values(2, width, 1.0), values(3, width, 1.0));
    let (dquery_before, dkey_before) = (values(5, width, 2.0), values(6, width, 2.0));
    let scratch = qk_norm_partials_len(spec.rows, spec.heads);
    let io = QkNormBackwardIo {
        x: &trial.input("x", &shape, &x)?,
        query_weight: &trial.input("query_weight", &[width], &query_weight)?,
        key_weight: &trial.input("key_weight", &[width], &key_weight)?,
        dqkv: &trial.output("dqkv", &shape, &dy)?,
        dquery_weight: &trial.output("dquery_weight", &[width], &dquery_before)?,
        dkey_weight: &trial.output("dkey_weight", &[width], &dkey_before)?,
        partials: &trial.overwritten("partials", &[scratch])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    qk_norm_backward(&mut trial.plan, &io, &sizes(spec))?;
    let live = spec.live * shape[1];
    let expected = reference::qk_norm_backward(
        &wide(&x)[..live],
        &wide(&query_weight),
        &wide(&key_weight),
        reference_heads(spec.heads),
        EPS.into(),
        &wide(&dy)[..live],
    );
    let mut dqkv = wide(&dy);
    dqkv[..live].copy_from_slice(&expected.dx);
    trial.expect(io.dqkv, dqkv, BOUND);
    for (tensor, before, gradient) in [
        (io.dquery_weight, dquery_before, expected.dquery_weight),
        (io.dkey_weight, dkey_before, expected.dkey_weight),
    ] {
        expect_added(&mut trial, tensor, &before, &gradient);
    }
    Ok(trial)
}
