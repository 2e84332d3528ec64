//! What parameters a GPT-2 model has, and how they start.

use super::Gpt2Config;

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
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero: biases.
    Zeros,
    /// All one: LayerNorm weights.
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

/// Names, shapes and starting values of a GPT-2 model with these heads.
///
/// Radford et al. 2019, section 2.3: normal 0.02 at width 768, and projections into the residual
/// stream divided by √(2 · layers). Narrower models start with `0.02 √(768 / width)`, so that a
/// product keeps the scale of what enters it; a fixed 0.02 would start them almost at zero.
pub fn gpt2_parameters(config: &Gpt2Config, heads: &[Head]) -> Vec<ParameterSpec> {
    let (width, inner) = (config.n_embd, config.inner());
    let deviation = 0.02 * (768.0 / width as f32).max(1.0).sqrt();
    let residual = Init::Normal(deviation / ((2 * config.n_layer) as f32).sqrt());
    let normal = Init::Normal(deviation);
    let matrix = |name: String, shape: [usize; 2], init| ParameterSpec {
        name,
        shape: shape.to_vec(),
        decay: true,
        init,
    };
    let vector = |name: String, len: usize, init| ParameterSpec {
        name,
        shape: vec![len],
        decay: false,
        init,
    };
    let mut specs = vec![
        matrix(
            "transformer.wte.weight".into(),
            [config.vocab_size, width],
            normal,
        ),
        matrix(
            "transformer.wpe.weight".into(),
            [config.n_positions, width],
            normal,
        ),
    ];
    for layer in 0..config.n_layer {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        specs.extend([
            matrix(name("attn.c_attn.weight"), [width, 3 * width], normal),
            matrix(name("attn.c_proj.weight"), [width, width], residual),
            matrix(name("mlp.c_fc.weight"), [width, inner], normal),
            matrix(name("mlp.c_proj.weight"), [inner, width], residual),
            vector(name("ln_1.weight"), width, Init::Ones),
            vector(name("ln_1.bias"), width, Init::Zeros),
            vector(name("attn.c_attn.bias"), 3 * width, Init::Zeros),
            vector(name("attn.c_proj.bias"), width, Init::Zeros),
            vector(name("ln_2.weight"), width, Init::Ones),
            vector(name("ln_2.bias"), width, Init::Zeros),
            vector(name("mlp.c_fc.bias"), inner, Init::Zeros),
            vector(name("mlp.c_proj.bias"), width, Init::Zeros),
        ]);
    }
    specs.extend([
        vector("transformer.ln_f.weight".into(), width, Init::Ones),
        vector("transformer.ln_f.bias".into(), width, Init::Zeros),
    ]);
    for head in heads {
        match head {
            Head::Score => specs.push(matrix("score.weight".into(), [1, width], normal)),
            Head::Language if config.tie_word_embeddings => {}
            Head::Language => specs.push(matrix(
                "lm_head.weight".into(),
                [config.vocab_size, width],
                normal,
            )),
            Head::Value => specs.push(matrix("value_head.weight".into(), [1, width], Init::Zeros)),
        }
    }
    specs
}
