//! Cases of `policy.token_logprob`.

use crate::Result;
use crate::check::language::{Inputs, Window, lists, targets};
use crate::check::support::{structs, wide};
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, RowList, Target};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::token_logprob::{
    TokenLogprobBackwardIo, TokenLogprobIo, token_logprob_backward, token_logprob_forward,
};
use crate::kernels::policy::{TokenGradient, TokenLogprob};
use crate::reference::policy::token_logprob as reference;

const BOUND: f64 = 1e-5;
const BEFORE: f32 = 7.0;

#[derive(Debug, Clone, Copy)]
struct Shape {
    tokens: usize,
    width: usize,
    /// Rows of each window of the head.
    windows: &'static [usize],
    targets: usize,
    chunk: usize,
    /// Live targets and tokens, where the batch has counts.
    live: Option<(usize, usize)>,
    inputs: Inputs,
    temperature: f32,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |tokens, width, windows, targets, chunk| Shape {
        tokens,
        width,
        windows,
        targets,
        chunk,
        live: None,
        inputs: Inputs::Within(1.0),
        temperature: 1.0,
    };
    let mut shapes = vec![
        plain(1, 1, &[1], 1, 1),
        plain(3, 4, &[2], 4, 4),
        plain(5, 3, &[5], 3, 1),
        plain(20, 12, &[130], 33, 16),
        plain(20, 13, &[13, 24, 4], 40, 64),
        plain(65, 32, &[513], 64, 64),
        plain(9, 8, &[1021, 7], 20, 7),
        // More targets than a dimension of a dispatch takes workgroups.
        plain(100, 1, &[3], 65_541, 65_541),
    ];
    for live in [(0, 0), (1, 3), (16, 9), (17, 20), (40, 20)] {
        for chunk in [16, 40] {
            shapes.push(Shape {
                live: Some(live),
                temperature: 0.7,
                ..plain(20, 12, &[64, 70], 40, chunk)
            });
        }
    }
    for inputs in [Inputs::Within(0.01), Inputs::Within(3.0), Inputs::Extreme] {
        for temperature in [1.0, 0.7, 2.5] {
            shapes.push(Shape {
                inputs,
                temperature,
                ..plain(30, 4, &[75], 50, 50)
            });
        }
    }
    let answers = shapes.into_iter();
    let mut cases: Vec<Case> = answers.map(|shape| case(shape, Purpose::Answer)).collect();
    cases.push(case(plain(512, 256, &[8192], 512, 256), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let Shape {
        tokens,
        width,
        windows,
        targets,
        chunk,
        live,
        inputs,
        temperature,
    } = shape;
    let name = format!(
        "{targets} targets of {tokens}x{width}, head {windows:?}, chunk {chunk}, live {live:?}, {inputs:?}, temperature {temperature}"
    );
    Case::new("policy.token_logprob", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

/// Of the log-probability and the entropy of each target, side by side; some are zero.
fn gradients(targets: usize) -> Vec<f32> {
    let mut gradients = values(4, 2 * targets, 1.5);
    for pair in gradients.chunks_mut(2).skip(3).step_by(7) {
        pair.fill(0.0);
    }
    gradients
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let Shape {
        tokens,
        width,
        targets: count,
        chunk,
        ..
    } = shape;
    let mut trial = Trial::new(gpu);
    let vocab: usize = shape.windows.iter().sum();
    let (live, live_tokens) = shape.live.unwrap_or((count, tokens));
    let hidden = shape.inputs.values(1, tokens * width, 1.0);
    let head = shape.inputs.values(2, vocab * width, 16.0);
    let dhead = values(3, vocab * width, 0.25);
    let windows = Window::split(&mut trial, (&head, &dhead), shape.windows, width)?;
    let live_targets = targets(live, live_tokens, vocab);
    let live_lists = lists(&live_targets);
    let counts = Counts {
        tokens: live_tokens as u32,
        targets: live as u32,
        target_lists: live_lists.len() as u32,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let counts = shape.live.map(|_| &counts);
    let list_count = counts.map_or(live_lists.len(), |_| count.min(tokens));
    let target_lists = Tensor::zeros::<RowList>(gpu, "target lists", &[list_count])?;
    target_lists.write(gpu, &live_lists)?;
    let targets = Tensor::zeros::<Target>(gpu, "targets", &[count])?;
    targets.write(gpu, &live_targets)?;
    let gradients = gradients(count);
    let gradient_rows = trial.input("gradients", &[count, 2], &gradients)?;
    let logprobs = trial.output("logprobs", &[count, 4], &vec![BEFORE; 4 * count])?;
    let dhidden = trial.output("dhidden", &[tokens, width], &vec![BEFORE; tokens * width])?;
    let io = TokenLogprobBackwardIo {
        forward: TokenLogprobIo {
            hidden: &trial.input("hidden", &[tokens, width], &hidden)?,
            head_windows: &Window::borrowed(&windows),
            targets: &targets,
            gathered: &trial.overwritten("gathered", &[chunk, width])?,
            logits: &trial.overwritten("logits", &[chunk, vocab.next_multiple_of(4)])?,
            logprobs: &structs::<TokenLogprob>(&logprobs)?,
            counts,
        },
        gradients: &structs::<TokenGradient>(&gradient_rows)?,
        target_lists: &target_lists,
        dgathered: &trial.overwritten("dgathered", &[count, width])?,
        dhidden: &dhidden,
    };
    token_logprob_forward(&mut trial.plan, &io.forward, shape.temperature)?;
    token_logprob_backward(&mut trial.plan, &io, shape.temperature)?;

    let inputs = References::new(&hidden[..live_tokens * width], &head, &live_targets, shape);
    inputs.expect_figures(&mut trial, &logprobs);
    let mut expected = inputs.gradients(&gradients);
    expected.dhidden.resize(tokens * width, BEFORE.into());
    trial.expect(&dhidden, expected.dhidden, BOUND);
    let sizes = (width, BOUND);
    Window::expect(&mut trial, &windows, &expected.dhead, &dhead, sizes);
    Ok(trial)
}

/// The inputs as the reference takes them.
struct References {
    hidden: Vec<f64>,
    head: Vec<f64>,
    targets: Vec<reference::Target>,
    shape: Shape,
}

impl References {
    fn new(hidden: &[f32], head: &[f32], targets: &[Target], shape: Shape) -> Self {
        let target = |target: &Target| reference::Target {
            row: target.row,
            token: target.token,
        };
        Self {
            hidden: wide(hidden),
            head: wide(head),
            targets: targets.iter().map(target).collect(),
            shape,
        }
    }

    fn expect_figures(&self, trial: &mut Trial, logprobs: &Tensor) {
        let (width, temperature) = (self.shape.width, self.shape.temperature.into());
        let figures = reference::token_logprob_forward(
            &self.hidden,
            &self.head,
            &self.targets,
            width,
            temperature,
        );
        let mut column = |name, index, figure: fn(&reference::TokenLogprob) -> f64| {
            let mut expected: Vec<f64> = figures.iter().map(figure).collect();
            expected.resize(self.shape.targets, BEFORE.into());
            trial.expect_column(name, logprobs, index, expected, BOUND);
        };
        column("logprob", 0, |of| of.logprob);
        column("entropy", 1, |of| of.entropy);
        column("lse", 2, |of| of.lse);
        column("pad", 3, |_| 0.0);
    }

    fn gradients(&self, gradients: &[f32]) -> reference::TokenLogprobGradients {
        let gradients: Vec<_> = gradients
            .chunks_exact(2)
            .take(self.targets.len())
            .map(|pair| reference::TokenGradient {
                dlogprob: pair[0].into(),
                dentropy: pair[1].into(),
            })
            .collect();
        reference::token_logprob_backward(
            &self.hidden,
            &self.head,
            &self.targets,
            &gradients,
            (self.shape.width, self.shape.temperature.into()),
        )
    }
}
