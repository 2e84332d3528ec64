//! The numbers that all peers compute with.

use anyhow::{Context, Result};
use prefgrad::check::values;
use prefgrad::data::Random;
use prefgrad::model::{Gpt2Config, Head, Init, ModelConfig, ParameterSpec, model_parameters};

use crate::rows::{ATTENTION, LAYER_NORM, LOG_SOFTMAX, PPO, StepSizes};

/// Of the weights that a reward model starts from.
pub const SEED: u64 = 0;

/// Those weights as prefgrad makes them, by GPT-2's names and in its layout: matrices are (inputs,
/// outputs).
pub struct Weights {
    specs: Vec<ParameterSpec>,
}

impl Weights {
    pub fn new(sizes: &StepSizes) -> Self {
        Self {
            specs: model_parameters(&config(sizes), &[Head::Score]),
        }
    }

    /// The shape and the values of one parameter; made when asked for, so that no peer's memory
    /// holds them twice.
    pub fn get(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let short = |full: &str| full.strip_prefix("transformer.").unwrap_or(full) == name;
        let found = (0..).zip(&self.specs).find(|(_, spec)| short(&spec.name));
        let (stream, spec) = found.with_context(|| format!("no parameter {name}"))?;
        let count = spec.shape.iter().product();
        let values = match spec.init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Normal(deviation) => {
                let mut random = Random::new(SEED, stream);
                (0..count).map(|_| deviation * random.normal()).collect()
            }
        };
        Ok((spec.shape.clone(), values))
    }
}

pub fn config(sizes: &StepSizes) -> ModelConfig {
    Gpt2Config {
        vocab_size: sizes.vocab,
        n_positions: sizes.positions,
        n_embd: sizes.width,
        n_layer: sizes.layers,
        n_head: sizes.heads,
        n_inner: None,
        layer_norm_epsilon: crate::rows::NORM_EPS,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into()
}

/// The batch's texts: a pair's chosen one, then its rejected one. The first halves of the two are
/// the same, as under one prompt.
pub fn texts(sizes: &StepSizes) -> Vec<Vec<u32>> {
    let mut random = Random::new(1, 0);
    let mut text = |len: usize| -> Vec<u32> {
        let token = |_| random.below(sizes.vocab) as u32;
        (0..len).map(token).collect()
    };
    let half = sizes.tokens / 2;
    let mut texts = Vec::with_capacity(sizes.sequences());
    for _ in 0..sizes.pairs {
        let prompt = text(half);
        for _ in 0..2 {
            texts.push([&prompt[..], &text(sizes.tokens - half)].concat());
        }
    }
    texts
}

/// Two square matrices.
pub fn matrices(size: usize) -> [Vec<f32>; 2] {
    [1, 2].map(|seed| values(seed, size * size, 1.0))
}

pub struct AttentionData {
    /// (sequences, tokens, 3 heads width): queries, keys, values.
    pub qkv: Vec<f32>,
    /// (sequences, tokens, heads width): the gradient of the output.
    pub dout: Vec<f32>,
}

impl AttentionData {
    pub fn new() -> Self {
        let len = ATTENTION.iter().product();
        Self {
            qkv: values(1, 3 * len, 1.0),
            dout: values(2, len, 1.0),
        }
    }
}

pub struct LayerNormData {
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
    /// The gradient of the output.
    pub dy: Vec<f32>,
}

impl LayerNormData {
    pub fn new() -> Self {
        let [rows, columns] = LAYER_NORM;
        Self {
            x: values(1, rows * columns, 1.0),
            weight: values(2, columns, 1.0),
            bias: values(3, columns, 1.0),
            dy: values(4, rows * columns, 1.0),
        }
    }
}

/// Rows of logits and the token that came after each.
pub struct LogitsData {
    pub logits: Vec<f32>,
    pub targets: Vec<u32>,
}

impl LogitsData {
    pub fn new([rows, vocab]: [usize; 2]) -> Self {
        let mut random = Random::new(2, 0);
        let target = |_| random.below(vocab) as u32;
        Self {
            logits: values(1, rows * vocab, 4.0),
            targets: (0..rows).map(target).collect(),
        }
    }

    pub fn for_log_softmax() -> Self {
        Self::new(LOG_SOFTMAX)
    }

    fn logprobs(&self) -> Vec<f32> {
        let vocab = self.logits.len() / self.targets.len();
        let rows = self.logits.chunks_exact(vocab).zip(&self.targets);
        let logprob = |(row, &target): (&[f32], &u32)| {
            let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
            (f64::from(row[target as usize]) - sum.ln()) as f32
        };
        rows.map(logprob).collect()
    }
}

/// What PPO learns from.
pub struct PpoData {
    pub now: LogitsData,
    /// Log-probabilities of the targets when they were sampled; ratios lie in exp(± 0.4).
    pub old: Vec<f32>,
    pub advantages: Vec<f32>,
}

impl PpoData {
    pub fn new() -> Self {
        let now = LogitsData::new(PPO);
        let moved = values(3, now.targets.len(), 0.4);
        let old = now.logprobs().into_iter().zip(moved);
        Self {
            old: old.map(|(logprob, moved)| logprob - moved).collect(),
            advantages: values(4, now.targets.len(), 1.0),
            now,
        }
    }
}
