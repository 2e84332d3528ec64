//! What the forward pass leaves for the backward pass, and the backward pass's own buffers.

use super::Gpt2Config;
use crate::Result;
use crate::gpu::{Gpu, Tensor};

/// The output of a LayerNorm with what its backward needs.
pub(super) struct Norm {
    /// (T, C)
    pub y: Tensor,
    /// (T)
    pub mean: Tensor,
    /// (T)
    pub rstd: Tensor,
}

/// The activations of one block.
pub(super) struct Block {
    pub ln_1: Norm,
    /// (T, 3C): queries, keys and values.
    pub qkv: Tensor,
    /// (T, C): attention's output.
    pub attended: Tensor,
    /// (T, H): log-sum-exp of attention's scores.
    pub lse: Tensor,
    /// (T, C): the residual stream after attention.
    pub middle: Tensor,
    pub ln_2: Norm,
    /// (T, inner): before GELU.
    pub pre: Tensor,
    /// (T, inner): after GELU.
    pub act: Tensor,
    /// (T, C): the residual stream after the block.
    pub out: Tensor,
}

/// Everything the forward pass writes.
pub(super) struct Activations {
    /// (T, C): token plus position.
    pub embedded: Tensor,
    pub blocks: Vec<Block>,
    pub ln_f: Norm,
}

/// Buffers of the backward pass, shared by all blocks.
pub(super) struct Gradients {
    /// (T, C): gradient of the final norm's output.
    pub hidden: Tensor,
    /// (T, C): gradient of the residual stream.
    pub stream: Tensor,
    /// (T, C): gradient of a norm's output.
    pub normed: Tensor,
    /// (T, inner)
    pub pre: Tensor,
    /// (T, C)
    pub attended: Tensor,
    /// (T, 3C)
    pub qkv: Tensor,
    /// (T, H): Σ dout·out of attention.
    pub delta: Tensor,
    /// Scratch of the norms' and biases' sums over rows.
    pub partials: Tensor,
}

impl Norm {
    fn new(gpu: &Gpu, label: &str, tokens: usize, width: usize) -> Result<Self> {
        Ok(Self {
            y: Tensor::zeros::<f32>(gpu, label, &[tokens, width])?,
            mean: Tensor::zeros::<f32>(gpu, &format!("{label} mean"), &[tokens])?,
            rstd: Tensor::zeros::<f32>(gpu, &format!("{label} rstd"), &[tokens])?,
        })
    }
}

impl Block {
    fn new(gpu: &Gpu, layer: usize, config: &Gpt2Config, tokens: usize) -> Result<Self> {
        let (width, inner) = (config.n_embd, config.inner());
        let tensor = |what: &str, columns: usize| {
            Tensor::zeros::<f32>(gpu, &format!("block {layer} {what}"), &[tokens, columns])
        };
        Ok(Self {
            ln_1: Norm::new(gpu, &format!("block {layer} ln_1"), tokens, width)?,
            qkv: tensor("qkv", 3 * width)?,
            attended: tensor("attended", width)?,
            lse: tensor("lse", config.n_head)?,
            middle: tensor("middle", width)?,
            ln_2: Norm::new(gpu, &format!("block {layer} ln_2"), tokens, width)?,
            pre: tensor("pre", inner)?,
            act: tensor("act", inner)?,
            out: tensor("out", width)?,
        })
    }
}

impl Activations {
    /// Allocates `blocks` sets for the blocks: one a block to train, two in turn to score.
    pub fn new(gpu: &Gpu, config: &Gpt2Config, tokens: usize, blocks: usize) -> Result<Self> {
        Ok(Self {
            embedded: Tensor::zeros::<f32>(gpu, "embedded", &[tokens, config.n_embd])?,
            blocks: (0..blocks)
                .map(|layer| Block::new(gpu, layer, config, tokens))
                .collect::<Result<_>>()?,
            ln_f: Norm::new(gpu, "ln_f", tokens, config.n_embd)?,
        })
    }

    /// The activations of block `layer`.
    pub fn block(&self, layer: usize) -> &Block {
        &self.blocks[layer % self.blocks.len()]
    }

    /// The residual stream that enters block `layer`.
    pub fn entering(&self, layer: usize) -> &Tensor {
        match layer {
            0 => &self.embedded,
            _ => &self.block(layer - 1).out,
        }
    }
}

impl Gradients {
    pub fn new(gpu: &Gpu, config: &Gpt2Config, tokens: usize, partials: usize) -> Result<Self> {
        let (width, inner) = (config.n_embd, config.inner());
        let tensor =
            |label: &str, columns: usize| Tensor::zeros::<f32>(gpu, label, &[tokens, columns]);
        Ok(Self {
            hidden: tensor("d hidden", width)?,
            stream: tensor("d stream", width)?,
            normed: tensor("d normed", width)?,
            pre: tensor("d pre", inner)?,
            attended: tensor("d attended", width)?,
            qkv: tensor("d qkv", 3 * width)?,
            delta: tensor("delta", config.n_head)?,
            partials: Tensor::zeros::<f32>(gpu, "row sums", &[partials])?,
        })
    }
}
