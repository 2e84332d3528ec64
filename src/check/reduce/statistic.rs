//! Cases of `reduce.statistic`.

use crate::Result;
use crate::check::support::{token_counts, token_rows, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::gpu::Gpu;
use crate::kernels::reduce::statistic::{Statistic, StatisticIo, statistic};
use crate::reference::reduce as reference;

const BOUND: f64 = 1e-5;
const ALL: [Statistic; 4] = [
    Statistic::Sum,
    Statistic::Moments,
    Statistic::Extremes,
    Statistic::NonFinite,
];

/// The values.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// In [-1, 1): of a million the sum is about a thousandth of the summed magnitudes.
    Mixed,
    /// About 10,000, which differ by 1.
    Shifted,
    /// Some infinite or not a number.
    Special,
}

#[derive(Debug, Clone, Copy)]
struct Spec {
    rows: usize,
    live: usize,
    columns: usize,
    kind: Kind,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, live, columns, kind) in [
        (1, 1, 1, Kind::Mixed),
        (63, 63, 1, Kind::Mixed),
        (64, 64, 1, Kind::Mixed),
        (65, 65, 1, Kind::Mixed),
        (16_383, 16_383, 1, Kind::Mixed),
        (16_385, 16_385, 1, Kind::Mixed),
        (128, 128, 129, Kind::Mixed),
        (1_000_000, 1_000_000, 1, Kind::Mixed),
        (1_000_003, 1_000_003, 1, Kind::Mixed),
        (1_000_003, 1_000_001, 1, Kind::Mixed),
        (300_000, 250_001, 4, Kind::Mixed),
        (100_000, 100_000, 1, Kind::Shifted),
        (100_001, 100_001, 1, Kind::Shifted),
        (700, 257, 12, Kind::Mixed),
    ] {
        let spec = Spec {
            rows,
            live,
            columns,
            kind,
        };
        cases.extend(ALL.map(|which| case(spec, which, Purpose::Answer)));
    }
    for (rows, live) in [(1, 1), (50_000, 50_000), (50_001, 50_001), (50_001, 33_333)] {
        let spec = Spec {
            rows,
            live,
            columns: 1,
            kind: Kind::Special,
        };
        cases.push(case(spec, Statistic::NonFinite, Purpose::Answer));
    }
    let spec = Spec {
        rows: 1 << 22,
        live: 1 << 22,
        columns: 1,
        kind: Kind::Mixed,
    };
    cases.extend(ALL.map(|which| case(spec, which, Purpose::Timing)));
    cases
}

fn case(spec: Spec, which: Statistic, purpose: Purpose) -> Case {
    let Spec {
        rows,
        live,
        columns,
        kind,
    } = spec;
    let name = format!("{which:?} {live} of {rows}x{columns} {kind:?}").to_lowercase();
    Case::new("reduce.statistic", name, purpose, move |gpu| {
        build(gpu, spec, which)
    })
}

fn inputs(spec: Spec) -> Vec<f32> {
    let mut x = values(1, spec.rows * spec.columns, 1.0);
    match spec.kind {
        Kind::Mixed => {}
        Kind::Shifted => x.iter_mut().for_each(|x| *x += 10_000.0),
        Kind::Special => {
            let special = [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                -f32::NAN,
                f32::MAX,
                f32::MIN_POSITIVE / 8.0,
            ];
            for (i, x) in x.iter_mut().step_by(3).enumerate() {
                *x = special[i % special.len()];
            }
        }
    }
    x
}

fn build(gpu: &Gpu, spec: Spec, which: Statistic) -> Result<Trial> {
    let len = spec.rows * spec.columns;
    let x = inputs(spec);
    let mut trial = Trial::new(gpu);
    let io = StatisticIo {
        values: &trial.input("values", &[spec.rows, spec.columns], &x)?,
        result: &trial.overwritten("result", &[which.result_len()])?,
        partials: &trial.overwritten("partials", &[which.partials_len(len)])?,
        counts: Some(&token_counts(gpu, spec.live)?),
    };
    let rows = token_rows(spec.rows, spec.live);
    statistic(&mut trial.plan, &io, which, rows)?;
    let x = wide(&x[..spec.live * spec.columns]);
    let expected = match which {
        Statistic::Sum => vec![reference::sum(&x)],
        Statistic::Moments => vec![reference::mean(&x), reference::variance(&x)],
        Statistic::Extremes => vec![reference::min(&x), reference::max(&x)],
        Statistic::NonFinite => vec![reference::count_non_finite(&x) as f64],
    };
    // Each number has to keep the bound by itself: a variance may be far below its mean.
    for (i, value) in expected.into_iter().enumerate() {
        let one = io.result.window(&format!("result {i}"), i, &[1])?;
        trial.expect(&one, vec![value], BOUND);
    }
    Ok(trial)
}
