//! Cases of `nn.cross_entropy` and `nn.cross_entropy_statistics`.

use crate::Result;
use crate::check::language::{Inputs, Window, lists, targets};
use crate::check::support::wide;
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::{Counts, RowList, Target};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::METRICS;
use crate::kernels::nn::cross_entropy::{CrossEntropyGradients, CrossEntropyIo, cross_entropy};
use crate::kernels::nn::cross_entropy_statistics::{
    CrossEntropyStatisticsIo, cross_entropy_statistics,
};
use crate::reference::nn::cross_entropy as reference;

const BOUND: f64 = 1e-5;
const SCALE: f32 = 0.375;

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
    backward: bool,
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
        backward: true,
    };
    let shapes = [
        plain(1, 1, &[1], 1, 1),
        plain(3, 4, &[2], 4, 4),
        plain(5, 3, &[5], 3, 8),
        plain(20, 12, &[130], 33, 16),
        plain(20, 12, &[64, 68], 33, 11),
        plain(20, 13, &[13, 24, 4], 40, 64),
        plain(65, 32, &[513], 64, 64),
        plain(9, 8, &[1021, 7], 20, 6),
    ];
    let mut cases: Vec<Case> = shapes.map(|shape| case(shape, Purpose::Answer)).into();
    for live in [(0, 0), (1, 3), (16, 9), (17, 20), (40, 20)] {
        for backward in [true, false] {
            let shape = Shape {
                live: Some(live),
                backward,
                ..plain(20, 12, &[64, 70], 40, 16)
            };
            cases.push(case(shape, Purpose::Answer));
        }
    }
    for inputs in [Inputs::Within(0.01), Inputs::Within(3.0), Inputs::Extreme] {
        let shape = Shape {
            inputs,
            ..plain(30, 4, &[75], 50, 50)
        };
        cases.push(case(shape, Purpose::Answer));
    }
    // More targets than a dimension of a dispatch takes workgroups.
    cases.push(case(plain(100, 1, &[3], 65_541, 65_541), Purpose::Answer));
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
        backward,
    } = shape;
    let name = format!(
        "{targets} targets of {tokens}x{width}, head {windows:?}, chunk {chunk}, live {live:?}, {inputs:?}, backward {backward}"
    );
    Case::new("nn.cross_entropy", name, purpose, move |gpu| {
        Build::new(gpu, shape)?.finish()
    })
}

struct Build {
    shape: Shape,
    trial: Trial,
    hidden: Vec<f32>,
    head: Vec<f32>,
    dhead: Vec<f32>,
    live_targets: Vec<Target>,
    live_tokens: usize,
    windows: Vec<Window>,
}

impl Build {
    fn new(gpu: &Gpu, shape: Shape) -> Result<Self> {
        let mut trial = Trial::new(gpu);
        let width = shape.width;
        let vocab: usize = shape.windows.iter().sum();
        let (live, live_tokens) = shape.live.unwrap_or((shape.targets, shape.tokens));
        let head = shape.inputs.values(2, vocab * width, 16.0);
        let dhead = values(3, vocab * width, 0.25);
        let parts = (&head[..], &dhead[..]);
        let windows = Window::split(&mut trial, parts, shape.windows, width)?;
        Ok(Self {
            shape,
            trial,
            hidden: shape.inputs.values(1, shape.tokens * width, 1.0),
            head,
            dhead,
            live_targets: targets(live, live_tokens, vocab),
            live_tokens,
            windows,
        })
    }

    fn finish(mut self) -> Result<Trial> {
        let gpu = self.trial.plan.gpu().clone();
        let Shape {
            tokens,
            width,
            targets,
            chunk,
            backward,
            ..
        } = self.shape;
        let vocab: usize = self.shape.windows.iter().sum();
        let live_lists = lists(&self.live_targets);
        let counts = Counts {
            tokens: self.live_tokens as u32,
            targets: self.live_targets.len() as u32,
            target_lists: live_lists.len() as u32,
            target_scale: SCALE,
            slot: 1,
            ..Counts::default()
        };
        let counts = Tensor::from_slice(&gpu, "counts", &[1], &[counts])?;
        let counts = self.shape.live.map(|_| &counts);
        let list_count = match counts {
            Some(_) => targets.min(tokens),
            None => live_lists.len(),
        };
        let target_lists = Tensor::zeros::<RowList>(&gpu, "target lists", &[list_count])?;
        target_lists.write(&gpu, &live_lists)?;
        let targets_tensor = Tensor::zeros::<Target>(&gpu, "targets", &[targets])?;
        targets_tensor.write(&gpu, &self.live_targets)?;
        let trial = &mut self.trial;
        let hidden = trial.input("hidden", &[tokens, width], &self.hidden)?;
        let gathered = trial.overwritten("gathered", &[chunk, width])?;
        let logits = trial.overwritten("logits", &[chunk, vocab.next_multiple_of(4)])?;
        let logprobs = trial.output("logprobs", &[targets], &vec![7.0; targets])?;
        let dgathered = trial.overwritten("dgathered", &[targets, width])?;
        let dhidden = trial.output("dhidden", &[tokens, width], &vec![7.0; tokens * width])?;
        let metrics = trial.output("metrics", &[2, METRICS], &[-5.0; 2 * METRICS])?;
        let head_windows = Window::borrowed(&self.windows);
        let io = CrossEntropyIo {
            hidden: &hidden,
            head_windows: &head_windows,
            targets: &targets_tensor,
            gathered: &gathered,
            logits: &logits,
            logprobs: &logprobs,
            gradients: backward.then_some(CrossEntropyGradients {
                target_lists: &target_lists,
                dgathered: &dgathered,
                dhidden: &dhidden,
            }),
            counts,
        };
        cross_entropy(&mut trial.plan, &io, SCALE)?;
        let io = CrossEntropyStatisticsIo {
            targets: &targets_tensor,
            logprobs: &logprobs,
            metrics: &metrics,
            counts,
        };
        cross_entropy_statistics(&mut trial.plan, &io, SCALE)?;
        self.expect(&logprobs, &dhidden, &metrics)?;
        Ok(self.trial)
    }

    fn expect(&mut self, logprobs: &Tensor, dhidden: &Tensor, metrics: &Tensor) -> Result<()> {
        let width = self.shape.width;
        let targets: Vec<_> = self
            .live_targets
            .iter()
            .map(|target| reference::Target {
                row: target.row,
                token: target.token,
                weight: target.weight.into(),
            })
            .collect();
        let hidden = wide(&self.hidden[..self.live_tokens * width]);
        let mut expected =
            reference::cross_entropy(&hidden, &wide(&self.head), &targets, width, SCALE.into());
        let sum: f64 = expected.logprobs.iter().sum();
        let weight: f64 = targets.iter().map(|target| target.weight).sum();
        expected.logprobs.resize(self.shape.targets, 7.0);
        self.trial.expect(logprobs, expected.logprobs, BOUND);
        if self.shape.backward {
            expected.dhidden.resize(self.shape.tokens * width, 7.0);
        } else {
            expected.dhidden = vec![7.0; self.shape.tokens * width];
            expected.dhead.fill(0.0);
        }
        self.trial.expect(dhidden, expected.dhidden, BOUND);
        let sizes = (width, BOUND);
        let (windows, dhead) = (&self.windows, &expected.dhead);
        Window::expect(&mut self.trial, windows, dhead, &self.dhead, sizes);
        let row = usize::from(self.shape.live.is_some()) * METRICS;
        let figures = [
            ("loss", expected.loss, BOUND),
            ("targets", targets.len() as f64, 0.0),
            ("logprob", sum, BOUND),
            ("weight", weight, BOUND),
            ("spare", 0.0, 0.0),
            ("spare", 0.0, 0.0),
            ("not finite", 0.0, 0.0),
            ("spare", 0.0, 0.0),
        ];
        for (column, (name, value, bound)) in figures.into_iter().enumerate() {
            let figure = metrics.window(name, row + column, &[1])?;
            self.trial.expect(&figure, vec![value], bound);
        }
        Ok(())
    }
}
