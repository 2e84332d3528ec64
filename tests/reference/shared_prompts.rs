//! A prompt computed once gives what separate sequences give.

use prefgrad::reference::nn::attention::Segment;
use prefgrad::reference::nn::gelu::Gelu;
use prefgrad::reference::preference::pairwise_loss::{Pair, PairwiseLossOptions};
use prefgrad::reference::transformer::{Parameters, RewardStep, Run, Transformer};

use crate::assert_close;
use crate::support::random::Random;

/// Both ways are exact: they differ by rounding in another order of sums.
const ROUNDING: f64 = 1e-12;

/// A packed run of one record.
struct Record {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    /// Last row of the chosen and of the rejected answer.
    pooled_rows: [u32; 2],
}

impl Record {
    /// `[prompt | chosen | rejected]`.
    fn shared(prompt: &[u32], answers: [&[u32]; 2]) -> Self {
        let prefix_len = prompt.len() as u32;
        let mut record = Self {
            tokens: prompt.to_vec(),
            positions: (0..prefix_len).collect(),
            segments: vec![Segment::alone(0, prefix_len)],
            pooled_rows: [0; 2],
        };
        for (answer, pooled_row) in answers.iter().zip(&mut record.pooled_rows) {
            let (start, len) = (record.tokens.len() as u32, answer.len() as u32);
            record.segments.push(Segment {
                start,
                len,
                prefix_start: 0,
                prefix_len,
            });
            record.tokens.extend(*answer);
            record.positions.extend(prefix_len..prefix_len + len);
            *pooled_row = start + len - 1;
        }
        record
    }

    /// `[prompt chosen | prompt rejected]`.
    fn separate(prompt: &[u32], answers: [&[u32]; 2]) -> Self {
        let sequences = answers.map(|answer| [prompt, answer].concat());
        let (first, second) = (sequences[0].len() as u32, sequences[1].len() as u32);
        Self {
            tokens: sequences.concat(),
            positions: (0..first).chain(0..second).collect(),
            segments: vec![Segment::alone(0, first), Segment::alone(first, second)],
            pooled_rows: [first - 1, first + second - 1],
        }
    }

    fn step(&self, model: &Transformer, parameters: &Parameters) -> RewardStep {
        let run = Run {
            tokens: &self.tokens,
            positions: &self.positions,
            segments: &self.segments,
        };
        let pair = Pair {
            weight: 0.8,
            margin: 0.3,
        };
        let options = PairwiseLossOptions {
            label_smoothing: 0.05,
            centering: 0.01,
            pair_scale: 1.0,
        };
        model
            .reward_step(parameters, &run, &self.pooled_rows, &[pair], &options)
            .expect("parameters that fit")
    }
}

#[test]
fn shared_and_separate_prompts_agree() {
    let mut random = Random::new(11);
    let model = Transformer {
        vocabulary: 11,
        context: 16,
        width: 12,
        layers: 3,
        heads: 3,
        inner: 20,
        eps: 1e-5,
        gelu: Gelu::Tanh,
    };
    let mut parameters: Parameters = model
        .parameter_sizes()
        .into_iter()
        .map(|(name, size)| (name, random.values(size, 0.5)))
        .collect();
    parameters.insert("score.weight".to_owned(), random.values(model.width, 1.0));
    let prompt = random.indices(6, 11);
    let cases: [[&[u32]; 2]; 3] = [
        [&[1, 2, 3, 4], &[5, 6]],
        // One answer is a prefix of the other; both are one token long.
        [&[1, 2, 3], &[1, 2]],
        [&[7], &[8]],
    ];
    for answers in cases {
        let shared = Record::shared(&prompt, answers).step(&model, &parameters);
        let separate = Record::separate(&prompt, answers).step(&model, &parameters);
        assert_close("rewards", &shared.rewards, &separate.rewards, ROUNDING);
        for (name, gradient) in &shared.gradients {
            assert_close(name, gradient, &separate.gradients[name], ROUNDING);
        }
    }
}
