//! The whole decoder against checkpoints that `transformers` computed in `float64`.

use prefgrad::reference::nn::attention::Segment;
use prefgrad::reference::nn::cross_entropy::Target;
use prefgrad::reference::optim::adamw::{AdamW, adamw};
use prefgrad::reference::optim::grad_norm::{clip_coefficient, global_norm};
use prefgrad::reference::preference::pairwise_loss::{Pair, PairwiseLossOptions};
use prefgrad::reference::transformer::{Parameters, Run};

use crate::support::checkpoint::{Checkpoint, load};
use crate::{F64_BOUND, assert_close};

/// The expected gradients and trained weights are stored in `f32`: half a unit in the last place.
const STORED_F32_BOUND: f64 = 6e-8;

/// Sequences one after another, each a segment of its own.
struct Packed {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
}

impl Packed {
    fn new(sequences: &[Vec<u32>]) -> Self {
        let mut packed = Self {
            tokens: Vec::new(),
            positions: Vec::new(),
            segments: Vec::new(),
        };
        for sequence in sequences {
            let start = packed.tokens.len() as u32;
            let len = sequence.len() as u32;
            packed.segments.push(Segment::alone(start, len));
            packed.tokens.extend(sequence);
            packed.positions.extend(0..len);
        }
        packed
    }

    fn run(&self) -> Run<'_> {
        Run {
            tokens: &self.tokens,
            positions: &self.positions,
            segments: &self.segments,
        }
    }

    /// Last row of each sequence.
    fn last_rows(&self) -> Vec<u32> {
        let last = |segment: &Segment| segment.start + segment.len - 1;
        self.segments.iter().map(last).collect()
    }
}

/// Whether an array is zero but for rounding. One gradient is: a bias of the last norm moves both
/// rewards of a pair alike.
fn is_noise(values: &[f64]) -> bool {
    values.iter().all(|x| x.abs() < 1e-14)
}

fn assert_expected(checkpoint: &Checkpoint, kind: &str, actual: &Parameters) {
    assert_eq!(actual.len(), checkpoint.parameters().len());
    for (name, values) in actual {
        let name = format!("{kind}.{name}");
        let expected = checkpoint.expected(&name).f64();
        if is_noise(&expected) {
            assert!(is_noise(values), "{name} is not zero");
        } else {
            assert_close(&name, values, &expected, STORED_F32_BOUND);
        }
    }
}

/// Three steps of AdamW with clipping, as the checkpoints were trained; `step` gives loss and
/// gradients. Losses and gradient norms are known in `f64`. Gives the trained parameters.
fn assert_training(
    checkpoint: &Checkpoint,
    step: impl Fn(&Parameters) -> (f64, Parameters),
) -> Parameters {
    let option = |name: &str| checkpoint.training[name].as_f64().expect("an option");
    let mut parameters = checkpoint.parameters();
    let zeros = |p: &Parameters| -> Parameters {
        p.iter()
            .map(|(n, x)| (n.clone(), vec![0.0; x.len()]))
            .collect()
    };
    let (mut m, mut v) = (zeros(&parameters), zeros(&parameters));
    for index in 0..3 {
        let (loss, gradients) = step(&parameters);
        let views: Vec<&[f64]> = gradients.values().map(Vec::as_slice).collect();
        let norm = global_norm(&views);
        let expected = ["losses_f64", "grad_norms_f64"].map(|f| checkpoint.figure(f, index));
        assert_close("loss", &[loss], &expected[..1], F64_BOUND);
        assert_close("gradient norm", &[norm], &expected[1..], F64_BOUND);
        let options = AdamW {
            lr: option("lr"),
            beta1: checkpoint.figure("betas", 0),
            beta2: checkpoint.figure("betas", 1),
            eps: option("eps"),
            weight_decay: option("weight_decay"),
            step: index as i32 + 1,
            gradient_scale: clip_coefficient(norm, option("max_grad_norm")),
        };
        for (name, values) in &mut parameters {
            let moments = (m.get_mut(name), v.get_mut(name));
            let (Some(m), Some(v)) = moments else {
                panic!("no moments of {name}");
            };
            adamw(&options, values, &gradients[name], m, v);
        }
    }
    let (loss, _) = step(&parameters);
    assert_close(
        "loss",
        &[loss],
        &[checkpoint.figure("losses_f64", 3)],
        F64_BOUND,
    );
    parameters
}

#[test]
fn reward_model() {
    let Some(checkpoint) = load("gpt2_rm") else {
        return;
    };
    let packed = Packed::new(&checkpoint.sequences());
    let model = checkpoint.transformer();
    // The first half of the batch is chosen, the second rejected; no sequence holds the padding
    // token, so each pools at its last row.
    let last = packed.last_rows();
    let half = last.len() / 2;
    let pooled_rows: Vec<u32> = (0..half).flat_map(|p| [last[p], last[half + p]]).collect();
    let pair = Pair {
        weight: 1.0,
        margin: 0.0,
    };
    let pairs = vec![pair; half];
    let options = PairwiseLossOptions {
        label_smoothing: 0.0,
        centering: 0.0,
        pair_scale: 1.0 / half as f64,
    };
    let step = |parameters: &Parameters| {
        let run = packed.run();
        let step = model.reward_step(parameters, &run, &pooled_rows, &pairs, &options);
        step.expect("parameters that fit")
    };
    let parameters = checkpoint.parameters();
    let rewards = model
        .rewards(&parameters, &packed.run(), &last)
        .expect("fit");
    let expected = checkpoint.expected("rewards.f64").f64();
    assert_close("rewards", &rewards, &expected, F64_BOUND);
    assert_expected(&checkpoint, "grad", &step(&parameters).gradients);
    let trained = assert_training(&checkpoint, |parameters| {
        let step = step(parameters);
        (step.loss.statistics.loss, step.gradients)
    });
    assert_expected(&checkpoint, "after3", &trained);
}

#[test]
fn language_model_with_tied_weights() {
    let Some(checkpoint) = load("gpt2_lm") else {
        return;
    };
    let sequences = checkpoint.sequences();
    let packed = Packed::new(&sequences);
    let model = checkpoint.transformer();
    let mut targets = Vec::new();
    for segment in &packed.segments {
        for row in segment.start..segment.start + segment.len - 1 {
            let token = packed.tokens[row as usize + 1];
            targets.push(Target {
                row,
                token,
                weight: 1.0,
            });
        }
    }
    let scale = 1.0 / targets.len() as f64;
    let step = |parameters: &Parameters| {
        let step = model.language_step(parameters, &packed.run(), &targets, scale);
        step.expect("parameters that fit")
    };
    let out = step(&checkpoint.parameters());
    let expected = checkpoint.expected("logprobs.f64");
    let padded = expected.f64();
    let expected: Vec<f64> = sequences
        .iter()
        .zip(padded.chunks(expected.shape[1]))
        .flat_map(|(sequence, logprobs)| logprobs[..sequence.len() - 1].to_vec())
        .collect();
    assert_close("logprobs", &out.logprobs, &expected, F64_BOUND);
    assert_expected(&checkpoint, "grad", &out.gradients);
    assert_training(&checkpoint, |parameters| {
        let step = step(parameters);
        (step.loss, step.gradients)
    });
}
