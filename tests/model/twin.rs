//! A policy's twin in `f64`: separate sequences, one token after another, and AdamW.

use prefgrad::data::{Preference, TokenRecord};
use prefgrad::model::{Gpt2Config, ModelConfig, Policy};
use prefgrad::reference::nn::attention::Segment;
use prefgrad::reference::nn::cross_entropy::Target;
use prefgrad::reference::nn::gelu::Gelu;
use prefgrad::reference::optim::adamw::{AdamW, adamw};
use prefgrad::reference::optim::grad_norm::{clip_coefficient, global_norm};
use prefgrad::reference::transformer::{Parameters, Run, Transformer};
use prefgrad::train::AdamW as Constants;

use crate::support::random::Random;
use crate::tools::gpu;

/// A prompt and its answer.
pub type Texts<'a> = (&'a [u32], &'a [u32]);

pub struct Twin {
    transformer: Transformer,
    pub parameters: Parameters,
    m: Parameters,
    v: Parameters,
    decayed: Vec<String>,
    steps: i32,
}

impl Twin {
    /// With the policy's weights as they are now.
    pub fn of(policy: &Policy) -> Self {
        let config = policy.config();
        let weights = policy.parameters().read_weights(gpu()).unwrap();
        let parameters: Parameters = weights
            .iter()
            .map(|(spec, values)| {
                let wide = values.iter().map(|&x| f64::from(x)).collect();
                (spec.name.clone(), wide)
            })
            .collect();
        let zeros: Parameters = parameters
            .iter()
            .map(|(name, values)| (name.clone(), vec![0.0; values.len()]))
            .collect();
        Self {
            transformer: Transformer {
                vocabulary: config.vocab_size,
                context: config.max_position_embeddings,
                width: config.hidden_size,
                layers: config.num_hidden_layers,
                heads: config.num_attention_heads,
                inner: config.intermediate_size,
                eps: config.norm_eps,
                gelu: Gelu::Tanh,
            },
            parameters,
            m: zeros.clone(),
            v: zeros,
            decayed: weights
                .iter()
                .filter(|(spec, _)| spec.decay)
                .map(|(spec, _)| spec.name.clone())
                .collect(),
            steps: 0,
        }
    }

    /// Log-probabilities of each answer's tokens behind its prompt, and the gradient of
    /// `Σ factor logprob`, one factor an answer.
    pub fn answers(&self, answers: &[Texts<'_>], factors: &[f64]) -> (Vec<Vec<f64>>, Parameters) {
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut segments, mut targets) = (Vec::new(), Vec::new());
        for ((prompt, answer), factor) in answers.iter().zip(factors) {
            let start = tokens.len() as u32;
            let len = (prompt.len() + answer.len()) as u32;
            segments.push(Segment::alone(start, len));
            positions.extend(0..len);
            tokens.extend(prompt.iter().chain(answer.iter()));
            let rows = start + prompt.len() as u32 - 1..;
            targets.extend(rows.zip(answer.iter()).map(|(row, &token)| Target {
                row,
                token,
                weight: -factor,
            }));
        }
        let run = Run {
            tokens: &tokens,
            positions: &positions,
            segments: &segments,
        };
        let step = self
            .transformer
            .language_step(&self.parameters, &run, &targets, 1.0)
            .unwrap();
        let mut rest = step.logprobs.as_slice();
        let logprobs = answers
            .iter()
            .map(|(_, answer)| {
                let (own, others) = rest.split_at(answer.len());
                rest = others;
                own.to_vec()
            })
            .collect();
        (logprobs, step.gradients)
    }

    /// One step of AdamW behind clipping; the norm before it.
    pub fn update(&mut self, gradients: &Parameters, constants: &Constants, lr: f64) -> f64 {
        self.steps += 1;
        let all: Vec<&[f64]> = gradients.values().map(Vec::as_slice).collect();
        let norm = global_norm(&all);
        for (name, values) in &mut self.parameters {
            let decays = self.decayed.contains(name);
            let options = AdamW {
                lr,
                beta1: constants.beta1,
                beta2: constants.beta2,
                eps: constants.eps,
                weight_decay: if decays { constants.weight_decay } else { 0.0 },
                step: self.steps,
                gradient_scale: clip_coefficient(norm, constants.max_grad_norm),
            };
            let (m, v) = (self.m.get_mut(name).unwrap(), self.v.get_mut(name).unwrap());
            adamw(&options, values, &gradients[name], m, v);
        }
        norm
    }
}

/// A small model.
pub fn config() -> ModelConfig {
    Gpt2Config {
        vocab_size: 61,
        n_positions: 64,
        n_embd: 32,
        n_layer: 2,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: Some(1),
        pad_token_id: Some(0),
        tie_word_embeddings: true,
    }
    .into()
}

/// Pairs and a ranking, with prompts over a tile's length and answers of a single token.
pub fn records() -> Vec<TokenRecord> {
    let mut random = Random::new(5);
    let shapes: [(usize, &[usize]); 5] = [
        (3, &[1, 4]),
        (37, &[9, 2]),
        (1, &[5, 5]),
        (12, &[3, 6, 1]),
        (8, &[2, 40]),
    ];
    let records = (1..).zip(shapes).map(|(line, (prompt, answers))| {
        let mut text = |len: usize| -> Vec<u32> {
            random
                .indices(len, 59)
                .iter()
                .map(|token| token + 2)
                .collect()
        };
        let mut record = TokenRecord {
            line,
            prompt: text(prompt),
            answers: answers.iter().map(|&len| text(len)).collect(),
            preferences: Vec::new(),
        };
        let orders: &[(usize, usize)] = match answers.len() {
            3 => &[(2, 0), (2, 1), (0, 1)],
            _ if line % 2 == 0 => &[(1, 0)],
            _ => &[(0, 1)],
        };
        for &(chosen, rejected) in orders {
            record.preferences.push(Preference {
                chosen,
                rejected,
                weight: line as f32 / orders.len() as f32,
                margin: 0.0,
            });
        }
        record
    });
    records.collect()
}

#[track_caller]
pub fn close(actual: f64, expected: f64, bound: f64, what: &str) {
    let error = (actual - expected).abs();
    assert!(
        error < bound * expected.abs().max(1.0),
        "{what}: {actual} {expected}, {error:e} apart"
    );
}
