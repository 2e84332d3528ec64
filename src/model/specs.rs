//! What parameters a model has, and how they start.

use super::ModelConfig;
use super::layers::{LinearPart, NormPart};

/// A parameter's name, shape and treatment.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// The Hugging Face name.
    pub name: String,
    /// The shape, as in the weight file.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: matrices and tables yes, biases and norms no.
    pub decay: bool,
    /// How it starts when a model is made anew.
    pub init: Init,
    /// Parameters that follow each other under one such name lie behind each other without a gap,
    /// and kernels see them as one parameter of that name, stacked by rows.
    pub stack: Option<String>,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero: biases.
    Zeros,
    /// All one: weights of norms.
    Ones,
    /// Normal with this standard deviation.
    Normal(f32),
}

/// What reads the last hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A reward: `score.weight` (1, C).
    Score,
    /// Next tokens: the token table, or `lm_head.weight` (V, C) where the two are not tied.
    Language,
    /// A value for each token, beside the language head: `value_head.weight` (1, C).
    Value,
}

/// Names, shapes and starting values of a model with these heads.
///
/// Radford et al. 2019, section 2.3: normal 0.02 at width 768, and projections into the residual
/// stream divided by √(2 · layers). Narrower models start with `0.02 √(768 / width)`, so that a
/// product keeps the scale of what enters it; a fixed 0.02 would start them almost at zero.
pub fn model_parameters(config: &ModelConfig, heads: &[Head]) -> Vec<ParameterSpec> {
    let mut specs = Specs::new(config);
    let (width, family) = (config.hidden_size, config.family);
    specs.matrix(family.token_table(), [config.vocab_size, width]);
    if let Some(name) = family.position_table() {
        specs.matrix(name, [config.max_position_embeddings, width]);
    }
    for layer in 0..config.num_hidden_layers {
        for part in LinearPart::ALL {
            specs.weight(layer, part);
        }
        specs.norm(&family.norm(layer, NormPart::Attention), width);
        if config.qk_norm() {
            specs.norm(&family.norm(layer, NormPart::Query), config.head_dim);
            specs.norm(&family.norm(layer, NormPart::Key), config.head_dim);
        }
        specs.bias(layer, LinearPart::Qkv);
        specs.bias(layer, LinearPart::Output);
        specs.norm(&family.norm(layer, NormPart::Mlp), width);
        specs.bias(layer, LinearPart::Up);
        specs.bias(layer, LinearPart::Down);
    }
    specs.norm(family.final_norm(), width);
    for head in heads {
        match head {
            Head::Score => specs.matrix("score.weight", [1, width]),
            Head::Language if config.tie_word_embeddings => {}
            Head::Language => specs.matrix("lm_head.weight", [config.vocab_size, width]),
            Head::Value => {
                specs.matrix("value_head.weight", [1, width]);
                specs.start(Init::Zeros);
            }
        }
    }
    specs.list
}

/// Collects the parameters of a model.
struct Specs<'a> {
    config: &'a ModelConfig,
    /// Standard deviation of matrices.
    deviation: f32,
    list: Vec<ParameterSpec>,
}

impl<'a> Specs<'a> {
    fn new(config: &'a ModelConfig) -> Self {
        Self {
            config,
            deviation: 0.02 * (768.0 / config.hidden_size as f32).max(1.0).sqrt(),
            list: vec![],
        }
    }

    fn push(&mut self, name: String, shape: &[usize], init: Init) {
        self.list.push(ParameterSpec {
            name,
            shape: shape.to_vec(),
            decay: shape.len() > 1,
            init,
            stack: None,
        });
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) {
        self.push(name.into(), &shape, Init::Normal(self.deviation));
    }

    /// How the last one starts.
    fn start(&mut self, init: Init) {
        if let Some(last) = self.list.last_mut() {
            last.init = init;
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.weight"), &[width], Init::Ones);
        if self.config.family.layer_norm() {
            self.push(format!("{name}.bias"), &[width], Init::Zeros);
        }
    }

    fn weight(&mut self, layer: usize, part: LinearPart) {
        let (config, family) = (self.config, self.config.family);
        let init = match part {
            LinearPart::Output | LinearPart::Down => {
                let layers = (2 * config.num_hidden_layers) as f32;
                Init::Normal(self.deviation / layers.sqrt())
            }
            _ => Init::Normal(self.deviation),
        };
        let (inputs, outputs, _) = config.linear(part);
        let name = format!("{}.weight", family.linear(layer, part));
        if family.input_major() {
            return self.push(name, &[inputs, outputs], init);
        }
        let parts = config.stacked(layer, part);
        for (part, rows) in &parts {
            self.push(format!("{part}.weight"), &[*rows, inputs], init);
            self.stack(parts.len(), &name);
        }
    }

    fn bias(&mut self, layer: usize, part: LinearPart) {
        let (config, family) = (self.config, self.config.family);
        let (_, outputs, bias) = config.linear(part);
        let name = format!("{}.bias", family.linear(layer, part));
        if !bias {
            return;
        }
        if family.input_major() {
            return self.push(name, &[outputs], Init::Zeros);
        }
        let parts = config.stacked(layer, part);
        for (part, rows) in &parts {
            self.push(format!("{part}.bias"), &[*rows], Init::Zeros);
            self.stack(parts.len(), &name);
        }
    }

    /// Makes the last one part of a stack, where there is more than one part.
    fn stack(&mut self, parts: usize, name: &str) {
        if let Some(last) = self.list.last_mut().filter(|_| parts > 1) {
            last.stack = Some(name.into());
        }
    }
}
