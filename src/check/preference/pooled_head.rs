//! Cases of `preference.pooled_head`.

use crate::Result;
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Answer, Counts, RowList};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::preference::pooled_head::{
    PooledHeadBackwardIo, PooledHeadIo, pooled_head_backward, pooled_head_forward,
};
use crate::reference::preference::pooled_head as reference;

const BOUND: f64 = 1e-5;

#[derive(Debug, Clone, Copy)]
struct Shape {
    tokens: usize,
    width: usize,
    answers: usize,
    /// Live tokens and answers, where the batch has counts.
    live: Option<(usize, usize)>,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, width, answers) in [
        (1, 1, 1),
        (5, 7, 3),
        (9, 33, 12),
        (17, 64, 6),
        (40, 63, 65),
        (65, 130, 200),
        (300, 768, 2),
    ] {
        let shape = Shape {
            tokens,
            width,
            answers,
            live: None,
        };
        cases.push(case(shape, Purpose::Answer));
    }
    for live in [(0, 0), (20, 5), (70, 40)] {
        let shape = Shape {
            tokens: 70,
            width: 36,
            answers: 40,
            live: Some(live),
        };
        cases.push(case(shape, Purpose::Answer));
    }
    // More answers than a dimension of a dispatch takes workgroups.
    let many = Shape {
        tokens: 3,
        width: 2,
        answers: 65_541,
        live: Some((3, 60_000)),
    };
    cases.push(case(many, Purpose::Answer));
    let timed = Shape {
        tokens: 4096,
        width: 768,
        answers: 64,
        live: None,
    };
    cases.push(case(timed, Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let Shape {
        tokens,
        width,
        answers,
        live,
    } = shape;
    let name = format!("{tokens}x{width}, {answers} answers, live {live:?}");
    Case::new("preference.pooled_head", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

/// Several answers may pool one row; rows come in no order.
fn pooled_rows(answers: usize, tokens: usize) -> Vec<u32> {
    values(5, answers, 1.0)
        .iter()
        .map(|x| ((x + 1.0) * 0.5 * tokens as f32) as u32)
        .map(|row| row.min(tokens.saturating_sub(1) as u32))
        .collect()
}

/// One list a pooled row, and the answers they name.
fn lists(pooled_rows: &[u32]) -> (Vec<RowList>, Vec<u32>) {
    let mut rows: Vec<u32> = (0..pooled_rows.len() as u32).collect();
    rows.sort_by_key(|&answer| pooled_rows[answer as usize]);
    let mut lists: Vec<RowList> = Vec::new();
    for (i, &answer) in rows.iter().enumerate() {
        let id = pooled_rows[answer as usize];
        match lists.last_mut() {
            Some(list) if list.id == id => list.end = i as u32 + 1,
            _ => lists.push(RowList {
                id,
                start: i as u32,
                end: i as u32 + 1,
                pad: 0,
            }),
        }
    }
    (lists, rows)
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let Shape {
        tokens,
        width,
        answers,
        ..
    } = shape;
    let (live_tokens, live_answers) = shape.live.unwrap_or((tokens, answers));
    let mut trial = Trial::new(gpu);
    let hidden = values(1, tokens * width, 1.0);
    let w = values(2, width, 0.5);
    let drewards = values(3, answers, 2.0);
    let dw_before = values(4, width, 0.25);
    let rows = pooled_rows(live_answers, live_tokens);
    let (live_lists, list_rows) = lists(&rows);
    let counts = Counts {
        tokens: live_tokens as u32,
        answers: live_answers as u32,
        pooled_lists: live_lists.len() as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let counts = shape.live.map(|_| &counts);

    let mut entries = vec![Answer::default(); answers];
    for (entry, &row) in entries.iter_mut().zip(&rows) {
        entry.pooled_row = row;
    }
    let answers_tensor = Tensor::from_slice(gpu, "answers", &[answers], &entries)?;
    let capacity = shape.live.map_or(live_lists.len(), |_| answers.min(tokens));
    let lists_tensor = Tensor::zeros::<RowList>(gpu, "pooled lists", &[capacity])?;
    lists_tensor.write(gpu, &live_lists)?;
    let rows_tensor = Tensor::zeros::<u32>(gpu, "pooled rows", &[answers])?;
    rows_tensor.write(gpu, &list_rows)?;
    let hidden_tensor = trial.input("hidden", &[tokens, width], &hidden)?;
    let w_tensor = trial.input("w", &[width], &w)?;
    let drewards_tensor = trial.input("drewards", &[answers], &drewards)?;
    let rewards = trial.output("rewards", &[answers], &vec![9.0; answers])?;
    let dhidden = trial.output("dhidden", &[tokens, width], &vec![9.0; tokens * width])?;
    let dw = trial.output("dw", &[width], &dw_before)?;
    pooled_head_forward(
        &mut trial.plan,
        &PooledHeadIo {
            hidden: &hidden_tensor,
            w: &w_tensor,
            answers: &answers_tensor,
            rewards: &rewards,
            counts,
        },
    )?;
    pooled_head_backward(
        &mut trial.plan,
        &PooledHeadBackwardIo {
            hidden: &hidden_tensor,
            w: &w_tensor,
            answers: &answers_tensor,
            pooled_lists: &lists_tensor,
            pooled_rows: &rows_tensor,
            drewards: &drewards_tensor,
            dhidden: &dhidden,
            dw: &dw,
            counts,
        },
    )?;

    let (hidden, w) = (wide(&hidden[..live_tokens * width]), wide(&w));
    let drewards = wide(&drewards[..live_answers]);
    let mut expected = reference::pooled_head_forward(&hidden, &rows, &w, 0.0);
    expected.resize(answers, 9.0);
    trial.expect(&rewards, expected, BOUND);
    let mut gradients = reference::pooled_head_backward(&hidden, &rows, &w, &drewards);
    gradients.dhidden.resize(tokens * width, 9.0);
    trial.expect(&dhidden, gradients.dhidden, BOUND);
    let sums = gradients.dw.iter().zip(dw_before);
    trial.expect(
        &dw,
        sums.map(|(dw, before)| dw + f64::from(before)).collect(),
        BOUND,
    );
    Ok(trial)
}
