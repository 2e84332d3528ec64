//! One rollout and its gradients in float64, every answer a sequence of its own.

use prefgrad::model::ModelConfig;
use prefgrad::reference::nn::attention::Segment;
use prefgrad::reference::nn::gelu::Gelu;
use prefgrad::reference::policy::experience::Token;
use prefgrad::reference::policy::token_logprob::{
    Target, TokenGradient, TokenLogprob, token_logprob_backward, token_logprob_forward,
};
use prefgrad::reference::preference::pooled_head::{pooled_head_backward, pooled_head_forward};
use prefgrad::reference::transformer::{Forward, Parameters, Run, Transformer};

use crate::policy_tools::Judged;

const WTE: &str = "transformer.wte.weight";

/// A model's sizes and weights.
pub struct Model {
    transformer: Transformer,
    pub weights: Parameters,
    temperature: f64,
}

/// What a model makes of an answer.
pub struct Said {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    targets: Vec<Target>,
    forward: Forward,
    pub logprobs: Vec<TokenLogprob>,
}

impl Model {
    pub fn new(config: &ModelConfig, weights: Parameters, temperature: f64) -> Self {
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
            weights,
            temperature,
        }
    }

    fn head(&self) -> &str {
        match self.weights.contains_key("lm_head.weight") {
            true => "lm_head.weight",
            false => WTE,
        }
    }

    /// A head of values: on a policy's trunk, or of a network of its own.
    fn value_head(&self) -> &str {
        match self.weights.contains_key("score.weight") {
            true => "score.weight",
            false => "value_head.weight",
        }
    }

    pub fn say(&self, answer: &Judged) -> Said {
        let tokens = [&answer.prompt[..], &answer.answer].concat();
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let first = answer.prompt.len() - 1;
        let targets: Vec<Target> = (first as u32..)
            .zip(&answer.answer)
            .map(|(row, &token)| Target { row, token })
            .collect();
        let run = Run {
            tokens: &tokens,
            positions: &positions,
            segments: &[Segment::alone(0, tokens.len() as u32)],
        };
        let forward = self.transformer.forward(&self.weights, &run).unwrap();
        let head = &self.weights[self.head()];
        let width = self.transformer.width;
        let (hidden, temperature) = (forward.hidden(), self.temperature);
        let logprobs = token_logprob_forward(hidden, head, &targets, width, temperature);
        Said {
            tokens,
            positions,
            targets,
            forward,
            logprobs,
        }
    }

    pub fn values(&self, said: &Said) -> Vec<f64> {
        let w = &self.weights[self.value_head()];
        pooled_head_forward(said.forward.hidden(), &said.rows(), w, 0.0)
    }

    /// Adds the gradients of an answer to `sum`.
    pub fn back(
        &self,
        said: &Said,
        gradients: &[TokenGradient],
        dvalues: &[f64],
        sum: &mut Parameters,
    ) {
        let hidden = said.forward.hidden();
        let mut add = |name: &str, values: &[f64]| {
            let own = sum
                .entry(name.to_owned())
                .or_insert_with(|| vec![0.0; values.len()]);
            own.iter_mut().zip(values).for_each(|(own, x)| *own += x);
        };
        let mut dhidden = vec![0.0; hidden.len()];
        if !gradients.is_empty() {
            let sizes = (self.transformer.width, self.temperature);
            let head = &self.weights[self.head()];
            let out = token_logprob_backward(hidden, head, &said.targets, gradients, sizes);
            add(self.head(), &out.dhead);
            dhidden = out.dhidden;
        }
        if !dvalues.is_empty() {
            let w = &self.weights[self.value_head()];
            let out = pooled_head_backward(hidden, &said.rows(), w, dvalues);
            add(self.value_head(), &out.dw);
            dhidden
                .iter_mut()
                .zip(&out.dhidden)
                .for_each(|(d, x)| *d += x);
        }
        let run = Run {
            tokens: &said.tokens,
            positions: &said.positions,
            segments: &[Segment::alone(0, said.tokens.len() as u32)],
        };
        let trunk = self
            .transformer
            .backward(&self.weights, &run, &said.forward, &dhidden)
            .unwrap();
        for (name, values) in &trunk {
            add(name, values);
        }
    }
}

impl Said {
    fn rows(&self) -> Vec<u32> {
        self.targets.iter().map(|target| target.row).collect()
    }
}

/// Who takes part in a rollout.
pub struct Cast {
    /// The policy that sampled.
    pub old: Model,
    /// The policy that learns.
    pub now: Model,
    pub reference: Model,
    /// A value network of its own, when the rollout was made and now.
    pub critics: Option<(Model, Model)>,
}

/// An answer as it is remembered, and as the learning policy sees it.
pub struct Remembered {
    pub tokens: Vec<Token>,
    pub now: Said,
    pub value_now: Option<Said>,
    /// Empty without values.
    pub values: Vec<f64>,
}

impl Cast {
    pub fn remember(&self, answer: &Judged, with_values: bool) -> Remembered {
        let (old, reference) = (self.old.say(answer), self.reference.say(answer));
        let now = self.now.say(answer);
        let (old_values, values, value_now) = match (&self.critics, with_values) {
            (_, false) => (vec![0.0; old.logprobs.len()], Vec::new(), None),
            (None, true) => (self.old.values(&old), self.now.values(&now), None),
            (Some((before, after)), true) => {
                let said = after.say(answer);
                let old_values = before.values(&before.say(answer));
                (old_values, after.values(&said), Some(said))
            }
        };
        let tokens = (old.logprobs.iter().zip(&reference.logprobs))
            .zip(old_values)
            .map(|((old, reference), value)| Token {
                logprob: old.logprob,
                ref_logprob: reference.logprob,
                value,
                weight: 1.0,
            })
            .collect();
        Remembered {
            tokens,
            now,
            value_now,
            values,
        }
    }
}
