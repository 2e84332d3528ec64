//! A reward model of GPT-2's shape, of candle-nn's modules. LayerNorm is the exception: the module
//! ends the gradient without a word, so `layer_norm_slow` takes its place.

use anyhow::Result;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::ops::{layer_norm_slow, softmax};
use candle_nn::{Embedding, Linear, Module};

use super::leaf;
use crate::data::Weights;
use crate::rows::{NORM_EPS, StepSizes};

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm_slow(
            x,
            &self.weight,
            &self.bias,
            NORM_EPS as f32,
        )?)
    }
}

struct Block {
    norm_1: Norm,
    qkv: Linear,
    output: Linear,
    norm_2: Norm,
    up: Linear,
    down: Linear,
    heads: usize,
}

pub struct RewardModel {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    score: Linear,
}

/// Makes trained tensors of given weights and remembers them for the optimiser.
struct Loader {
    weights: Weights,
    made: Vec<Var>,
}

impl Loader {
    fn get(&mut self, name: &str) -> Result<Tensor> {
        let (shape, values) = self.weights.get(name)?;
        self.keep(values, shape)
    }

    fn keep(&mut self, values: Vec<f32>, shape: Vec<usize>) -> Result<Tensor> {
        let var = leaf(values, shape)?;
        self.made.push(var.clone());
        Ok(var.as_tensor().clone())
    }

    /// candle's layers have their matrices the other way round: (outputs, inputs).
    fn linear(&mut self, name: &str) -> Result<Linear> {
        let (shape, values) = self.weights.get(&format!("{name}.weight"))?;
        let turned = Tensor::from_vec(values, shape, &Device::Cpu)?.t()?;
        let turned_shape = turned.dims().to_vec();
        let weight = self.keep(turned.flatten_all()?.to_vec1()?, turned_shape)?;
        let bias = self.get(&format!("{name}.bias"))?;
        Ok(Linear::new(weight, Some(bias)))
    }

    fn norm(&mut self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.get(&format!("{name}.weight"))?,
            bias: self.get(&format!("{name}.bias"))?,
        })
    }

    fn table(&mut self, name: &str, width: usize) -> Result<Embedding> {
        Ok(Embedding::new(self.get(name)?, width))
    }

    fn block(&mut self, layer: usize, heads: usize) -> Result<Block> {
        Ok(Block {
            norm_1: self.norm(&format!("h.{layer}.ln_1"))?,
            qkv: self.linear(&format!("h.{layer}.attn.c_attn"))?,
            output: self.linear(&format!("h.{layer}.attn.c_proj"))?,
            norm_2: self.norm(&format!("h.{layer}.ln_2"))?,
            up: self.linear(&format!("h.{layer}.mlp.c_fc"))?,
            down: self.linear(&format!("h.{layer}.mlp.c_proj"))?,
            heads,
        })
    }
}

/// Attention of (sequences, tokens, 3 heads width), causal: (sequences, tokens, heads width).
/// `mask` is added to the scores.
pub fn attention(qkv: &Tensor, heads: usize, mask: &Tensor) -> Result<Tensor> {
    let (sequences, tokens, three_widths) = qkv.dims3()?;
    let width = three_widths / 3;
    let head_width = width / heads;
    let part = |index: usize| -> Result<Tensor> {
        let part = qkv.narrow(D::Minus1, index * width, width)?;
        let part = part.reshape((sequences, tokens, heads, head_width))?;
        Ok(part.transpose(1, 2)?.contiguous()?)
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = (q.matmul(&k.t()?)? / (head_width as f64).sqrt())?;
    let weights = softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
    let out = weights.matmul(&v)?.transpose(1, 2)?;
    Ok(out.reshape((sequences, tokens, width))?)
}

/// Zero for keys that a query sees, and so low that nothing is left for others: (tokens, tokens).
pub fn causal_mask(tokens: usize) -> Result<Tensor> {
    let value = |index| {
        let (query, key) = (index / tokens, index % tokens);
        if key > query { -1e9 } else { 0.0 }
    };
    super::tensor((0..tokens * tokens).map(value).collect(), (tokens, tokens))
}

impl Block {
    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm_1.forward(x)?)?;
        let attended = attention(&qkv, self.heads, mask)?;
        let x = (x + self.output.forward(&attended)?)?;
        // candle's `gelu` is the tanh form.
        let up = self.up.forward(&self.norm_2.forward(&x)?)?.gelu()?;
        Ok((&x + self.down.forward(&up)?)?)
    }
}

impl RewardModel {
    /// A model and its parameters.
    pub fn new(sizes: &StepSizes) -> Result<(Self, Vec<Var>)> {
        let mut loader = Loader {
            weights: Weights::new(sizes),
            made: vec![],
        };
        let blocks = (0..sizes.layers).map(|layer| loader.block(layer, sizes.heads));
        let blocks = blocks.collect::<Result<_>>()?;
        let model = Self {
            blocks,
            tokens: loader.table("wte.weight", sizes.width)?,
            positions: loader.table("wpe.weight", sizes.width)?,
            norm: loader.norm("ln_f")?,
            score: Linear::new(loader.get("score.weight")?, None),
        };
        Ok((model, loader.made))
    }

    /// The reward of each text: tokens (sequences, tokens), rewards (sequences, 1).
    pub fn forward(&self, tokens: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, len) = tokens.dims2()?;
        let positions = Tensor::arange(0, len as u32, tokens.device())?;
        let positions = self.positions.forward(&positions)?;
        let mut x = self.tokens.forward(tokens)?.broadcast_add(&positions)?;
        for block in &self.blocks {
            x = block.forward(&x, mask)?;
        }
        let x = self.norm.forward(&x)?;
        let last = x.narrow(1, len - 1, 1)?.squeeze(1)?;
        Ok(self.score.forward(&last)?)
    }
}
