//! A reward model of GPT-2's shape, of burn's own modules.

use anyhow::{Context, Result};
use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{gelu_approximate, softmax};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::{indices, tensor};
use crate::data::Weights;
use crate::rows::{NORM_EPS, StepSizes};

#[derive(Module, Debug)]
struct Block {
    norm_1: LayerNorm,
    qkv: Linear,
    output: Linear,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
pub struct RewardModel {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    score: Linear,
}

/// Puts given weights into burn's modules.
struct Loader<'a> {
    weights: Weights,
    device: &'a Device,
}

impl Loader<'_> {
    fn vector(&self, name: &str) -> Result<Param<Tensor<1>>> {
        let (_, values) = self.weights.get(name)?;
        let len = values.len();
        Ok(Param::from_tensor(tensor(values, [len], self.device)))
    }

    fn matrix(&self, name: &str) -> Result<Param<Tensor<2>>> {
        let (shape, values) = self.weights.get(name)?;
        let shape = shape.try_into().ok().context("not a matrix")?;
        Ok(Param::from_tensor(tensor::<2>(values, shape, self.device)))
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"))?,
            bias: Some(self.vector(&format!("{name}.bias"))?),
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<LayerNorm> {
        let config = LayerNormConfig::new(width).with_epsilon(NORM_EPS);
        let mut norm = config.init(self.device);
        norm.gamma = self.vector(&format!("{name}.weight"))?;
        norm.beta = Some(self.vector(&format!("{name}.bias"))?);
        Ok(norm)
    }

    fn block(&self, layer: usize, sizes: &StepSizes) -> Result<Block> {
        Ok(Block {
            norm_1: self.norm(&format!("h.{layer}.ln_1"), sizes.width)?,
            qkv: self.linear(&format!("h.{layer}.attn.c_attn"))?,
            output: self.linear(&format!("h.{layer}.attn.c_proj"))?,
            norm_2: self.norm(&format!("h.{layer}.ln_2"), sizes.width)?,
            up: self.linear(&format!("h.{layer}.mlp.c_fc"))?,
            down: self.linear(&format!("h.{layer}.mlp.c_proj"))?,
            heads: sizes.heads,
        })
    }
}

/// Attention of (sequences, tokens, 3 heads width), causal: (sequences, tokens, heads width).
pub fn attention(qkv: Tensor<3>, heads: usize, hidden_keys: Tensor<4, Bool>) -> Tensor<3> {
    let [sequences, tokens, three_widths] = qkv.dims();
    let width = three_widths / 3;
    let head_width = width / heads;
    let [q, k, v] = [0, 1, 2].map(|part| {
        let part = qkv.clone().narrow(2, part * width, width);
        let part = part.reshape([sequences, tokens, heads, head_width]);
        part.swap_dims(1, 2)
    });
    let scale = 1.0 / (head_width as f64).sqrt();
    let scores = q.matmul(k.transpose()).mul_scalar(scale);
    let weights = softmax(scores.mask_fill(hidden_keys, -1e9), 3);
    let out = weights.matmul(v).swap_dims(1, 2);
    out.reshape([sequences, tokens, width])
}

/// True where a key lies behind the query: (1, 1, tokens, tokens).
pub fn hidden_keys(tokens: usize, device: &Device) -> Tensor<4, Bool> {
    Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, device).reshape([1, 1, tokens, tokens])
}

impl Block {
    fn forward(&self, x: Tensor<3>, hidden_keys: Tensor<4, Bool>) -> Tensor<3> {
        let qkv = self.qkv.forward(self.norm_1.forward(x.clone()));
        let attended = attention(qkv, self.heads, hidden_keys);
        let x = x + self.output.forward(attended);
        let up = gelu_approximate(self.up.forward(self.norm_2.forward(x.clone())));
        x + self.down.forward(up)
    }
}

impl RewardModel {
    pub fn new(sizes: &StepSizes, device: &Device) -> Result<Self> {
        let weights = Weights::new(sizes);
        let loader = Loader { weights, device };
        let blocks = (0..sizes.layers).map(|layer| loader.block(layer, sizes));
        let (_, score) = loader.weights.get("score.weight")?;
        let score = tensor(score, [sizes.width, 1], device);
        Ok(Self {
            tokens: Embedding {
                weight: loader.matrix("wte.weight")?,
            },
            positions: Embedding {
                weight: loader.matrix("wpe.weight")?,
            },
            blocks: blocks.collect::<Result<_>>()?,
            norm: loader.norm("ln_f", sizes.width)?,
            score: Linear {
                weight: Param::from_tensor(score),
                bias: None,
            },
        })
    }

    /// The reward of each text: tokens (sequences, tokens), rewards (sequences, 1).
    pub fn forward(&self, tokens: Tensor<2, Int>, hidden_keys: Tensor<4, Bool>) -> Tensor<2> {
        let [sequences, len] = tokens.dims();
        let positions = indices((0..len as i32).collect(), [1, len], &tokens.device());
        let mut x = self.tokens.forward(tokens) + self.positions.forward(positions);
        for block in &self.blocks {
            x = block.forward(x, hidden_keys.clone());
        }
        let x = self.norm.forward(x);
        let [_, _, width] = x.dims();
        let last = x.narrow(1, len - 1, 1).reshape([sequences, width]);
        self.score.forward(last)
    }
}
