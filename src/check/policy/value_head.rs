//! Cases of `policy.value_head`.

use crate::Result;
use crate::check::language::{lists, targets};
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, RowList, Target};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::value_head::{
    InputGradient, ValueHeadBackwardIo, ValueHeadIo, value_head_backward, value_head_forward,
};
use crate::reference::preference::pooled_head as reference;

const BOUND: f64 = 1e-5;
const BEFORE: f32 = 9.0;

#[derive(Debug, Clone, Copy)]
struct Shape {
    tokens: usize,
    width: usize,
    targets: usize,
    /// Live tokens and targets, where the batch has counts.
    live: Option<(usize, usize)>,
    input: InputGradient,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for input in [InputGradient::Overwrite, InputGradient::Add] {
        let shape = |tokens, width, targets, live| Shape {
            tokens,
            width,
            targets,
            live,
            input,
        };
        let answers = [
            shape(1, 1, 1, None),
            shape(9, 33, 12, None),
            shape(65, 130, 200, None),
            shape(70, 36, 40, Some((0, 0))),
            shape(70, 36, 40, Some((20, 5))),
            shape(70, 36, 40, Some((70, 40))),
            // More targets than a dimension of a dispatch takes workgroups.
            shape(3, 2, 65_541, Some((3, 60_000))),
        ];
        cases.extend(answers.map(|shape| case(shape, Purpose::Answer)));
    }
    let timed = Shape {
        tokens: 4096,
        width: 768,
        targets: 4096,
        live: None,
        input: InputGradient::Overwrite,
    };
    cases.push(case(timed, Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let Shape {
        tokens,
        width,
        targets,
        live,
        input,
    } = shape;
    let name = format!("{tokens}x{width}, {targets} targets, live {live:?}, {input:?}");
    Case::new("policy.value_head", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let Shape {
        tokens,
        width,
        targets: count,
        ..
    } = shape;
    let (live_tokens, live) = shape.live.unwrap_or((tokens, count));
    let mut trial = Trial::new(gpu);
    let (hidden, w) = (values(1, tokens * width, 1.0), values(2, width, 0.5));
    let (dvalues, dw_before) = (values(3, count, 2.0), values(4, width, 0.25));
    let live_targets = targets(live, live_tokens, 1);
    let live_lists = lists(&live_targets);
    let counts = Counts {
        tokens: live_tokens as u32,
        targets: live as u32,
        target_lists: live_lists.len() as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let counts = shape.live.map(|_| &counts);
    let capacity = shape.live.map_or(live_lists.len(), |_| count.min(tokens));
    let target_lists = Tensor::zeros::<RowList>(gpu, "target lists", &[capacity])?;
    target_lists.write(gpu, &live_lists)?;
    let targets = Tensor::zeros::<Target>(gpu, "targets", &[count])?;
    targets.write(gpu, &live_targets)?;
    let hidden_tensor = trial.input("hidden", &[tokens, width], &hidden)?;
    let w_tensor = trial.input("w", &[width], &w)?;
    let dvalues_tensor = trial.input("dvalues", &[count], &dvalues)?;
    let values = trial.output("values", &[count], &vec![BEFORE; count])?;
    let dhidden = trial.output("dhidden", &[tokens, width], &vec![BEFORE; tokens * width])?;
    let dw = trial.output("dw", &[width], &dw_before)?;
    let io = ValueHeadIo {
        hidden: &hidden_tensor,
        w: &w_tensor,
        targets: &targets,
        values: &values,
        counts,
    };
    value_head_forward(&mut trial.plan, &io)?;
    let io = ValueHeadBackwardIo {
        hidden: &hidden_tensor,
        w: &w_tensor,
        targets: &targets,
        target_lists: &target_lists,
        dvalues: &dvalues_tensor,
        dhidden: &dhidden,
        dw: &dw,
        counts,
    };
    value_head_backward(&mut trial.plan, &io, shape.input)?;

    let (hidden, w) = (wide(&hidden[..live_tokens * width]), wide(&w));
    let dvalues = wide(&dvalues[..live]);
    let rows: Vec<u32> = live_targets.iter().map(|target| target.row).collect();
    let mut expected = reference::pooled_head_forward(&hidden, &rows, &w, 0.0);
    expected.resize(count, BEFORE.into());
    trial.expect(&values, expected, BOUND);
    let mut gradients = reference::pooled_head_backward(&hidden, &rows, &w, &dvalues);
    if shape.input == InputGradient::Add {
        let before = f64::from(BEFORE);
        gradients.dhidden.iter_mut().for_each(|x| *x += before);
    }
    gradients.dhidden.resize(tokens * width, BEFORE.into());
    trial.expect(&dhidden, gradients.dhidden, BOUND);
    let sums = gradients.dw.iter().zip(dw_before);
    let sums = sums.map(|(dw, before)| dw + f64::from(before)).collect();
    trial.expect(&dw, sums, BOUND);
    Ok(trial)
}
