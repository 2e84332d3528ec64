//! Cases of `reduce.fill`.

use crate::check::{Case, Purpose, Trial};
use crate::kernels::reduce::fill::{fill, fill_within};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [1, 4, 63, 1024, 1025, 4096, 4100, 1_000_003] {
        cases.push(case(len, None, Purpose::Answer));
    }
    // Several windows, the last one shorter or of odd length.
    for len in [64, 192, 200, 201] {
        cases.push(case(len, Some(300), Purpose::Answer));
    }
    cases.push(case(1 << 24, None, Purpose::Timing));
    cases
}

fn case(len: usize, limit: Option<u64>, purpose: Purpose) -> Case {
    let windows = if limit.is_some() { " in windows" } else { "" };
    Case::new(
        "reduce.fill",
        format!("{len}{windows}"),
        purpose,
        move |gpu| {
            let mut trial = Trial::new(gpu);
            let out = trial.overwritten("out", &[len])?;
            match limit {
                None => fill(&mut trial.plan, &out, 0.0)?,
                Some(limit) => fill_within(&mut trial.plan, &out, -2.5, limit)?,
            }
            let value = if limit.is_none() { 0.0 } else { -2.5 };
            trial.expect(&out, vec![value; len], 0.0);
            Ok(trial)
        },
    )
}
