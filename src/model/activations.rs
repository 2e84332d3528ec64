//! What the forward pass leaves for the backward pass, and the backward pass's own buffers.

use super::ModelConfig;
use super::layers::NormPart;
use crate::Result;
use crate::gpu::{Gpu, Tensor};
use crate::kernels::nn::bias_gradient::bias_gradient_partials_len;
use crate::kernels::nn::layer_norm::layer_norm_partials_len;
use crate::kernels::nn::qk_norm::qk_norm_partials_len;
use crate::kernels::nn::rms_norm::rms_norm_partials_len;

/// The output of a norm with what its backward needs.
pub(super) struct Norm {
    /// (T, C)
    pub y: Tensor,
    /// (T): of a LayerNorm.
    pub mean: Option<Tensor>,
    /// (T)
    pub rstd: Tensor,
}

/// The activations of one block.
pub(super) struct Block {
    pub attention_norm: Norm,
    /// (T, (H + 2G) D): queries, keys and values before the heads' norms, where there are such.
    pub projected: Option<Tensor>,
    /// (T, (H + 2G) D): queries, keys and values as attention reads them.
    pub qkv: Tensor,
    /// (T, H D): attention's output.
    pub attended: Tensor,
    /// (T, H): log-sum-exp of attention's scores.
    pub lse: Tensor,
    /// (T, C): the residual stream after attention.
    pub middle: Tensor,
    pub mlp_norm: Norm,
    /// (T, inner): before GELU; (T, 2 inner): gate and up, before SwiGLU.
    pub pre: Tensor,
    /// (T, inner): after the activation.
    pub act: Tensor,
    /// (T, C): the residual stream after the block.
    pub out: Tensor,
}

/// Everything the forward pass writes.
pub(super) struct Activations {
    /// (T, C): token, plus position where that is learned.
    pub embedded: Tensor,
    pub blocks: Vec<Block>,
    pub final_norm: Norm,
}

/// Buffers of the backward pass, shared by all blocks.
pub(super) struct Gradients {
    /// (T, C): gradient of the final norm's output.
    pub hidden: Tensor,
    /// (T, C): gradient of the residual stream.
    pub stream: Tensor,
    /// (T, C): gradient of a norm's output.
    pub normed: Tensor,
    /// (T, inner) or (T, 2 inner)
    pub pre: Tensor,
    /// (T, inner): gradient of SwiGLU's output.
    pub act: Option<Tensor>,
    /// (T, H D)
    pub attended: Tensor,
    /// (T, (H + 2G) D)
    pub qkv: Tensor,
    /// (T, H): Σ dout·out of attention.
    pub delta: Tensor,
    /// Scratch of the norms' and biases' sums over rows.
    pub partials: Tensor,
}

impl Norm {
    fn new(gpu: &Gpu, label: &str, config: &ModelConfig, tokens: usize) -> Result<Self> {
        let vector = |what: &str| Tensor::zeros::<f32>(gpu, &format!("{label} {what}"), &[tokens]);
        Ok(Self {
            y: Tensor::zeros::<f32>(gpu, label, &[tokens, config.hidden_size])?,
            mean: match config.family.layer_norm() {
                true => Some(vector("mean")?),
                false => None,
            },
            rstd: vector("rstd")?,
        })
    }
}

impl Block {
    fn new(gpu: &Gpu, layer: usize, config: &ModelConfig, tokens: usize) -> Result<Self> {
        let (width, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let tensor = |what: &str, columns: usize| {
            Tensor::zeros::<f32>(gpu, &format!("block {layer} {what}"), &[tokens, columns])
        };
        let norm = |what: &str| Norm::new(gpu, &format!("block {layer} {what}"), config, tokens);
        Ok(Self {
            attention_norm: norm("attention norm")?,
            projected: match config.qk_norm() {
                true => Some(tensor("projected", heads.qkv_width())?),
                false => None,
            },
            qkv: tensor("qkv", heads.qkv_width())?,
            attended: tensor("attended", heads.out_width())?,
            lse: tensor("lse", heads.query)?,
            middle: tensor("middle", width)?,
            mlp_norm: norm("mlp norm")?,
            pre: tensor("pre", config.up_width())?,
            act: tensor("act", inner)?,
            out: tensor("out", width)?,
        })
    }

    /// The norm of the residual stream that `part` names.
    pub fn norm(&self, part: NormPart) -> &Norm {
        match part {
            NormPart::Mlp => &self.mlp_norm,
            _ => &self.attention_norm,
        }
    }
}

impl Activations {
    /// Allocates `blocks` sets for the blocks: one a block to train, two in turn to score.
    pub fn new(gpu: &Gpu, config: &ModelConfig, tokens: usize, blocks: usize) -> Result<Self> {
        Ok(Self {
            embedded: Tensor::zeros::<f32>(gpu, "embedded", &[tokens, config.hidden_size])?,
            blocks: (0..blocks)
                .map(|layer| Block::new(gpu, layer, config, tokens))
                .collect::<Result<_>>()?,
            final_norm: Norm::new(gpu, "final norm", config, tokens)?,
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
    pub fn new(gpu: &Gpu, config: &ModelConfig, tokens: usize) -> Result<Self> {
        let (width, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let tensor =
            |label: &str, columns: usize| Tensor::zeros::<f32>(gpu, label, &[tokens, columns]);
        Ok(Self {
            hidden: tensor("d hidden", width)?,
            stream: tensor("d stream", width)?,
            normed: tensor("d normed", width)?,
            pre: tensor("d pre", config.up_width())?,
            act: match config.family.gated() {
                true => Some(tensor("d act", inner)?),
                false => None,
            },
            attended: tensor("d attended", heads.out_width())?,
            qkv: tensor("d qkv", heads.qkv_width())?,
            delta: tensor("delta", heads.query)?,
            partials: Tensor::zeros::<f32>(gpu, "row sums", &[partials_len(config, tokens)])?,
        })
    }
}

/// Scratch of the largest sum over rows.
fn partials_len(config: &ModelConfig, tokens: usize) -> usize {
    let width = config.hidden_size;
    let norms = match config.family.layer_norm() {
        true => layer_norm_partials_len(tokens, width),
        false => rms_norm_partials_len(tokens, width),
    };
    let heads = match config.qk_norm() {
        true => qk_norm_partials_len(tokens, config.heads()),
        false => 0,
    };
    let widest = config.up_width().max(config.heads().qkv_width()).max(width);
    let biases = bias_gradient_partials_len(tokens, widest);
    norms.max(heads).max(biases)
}
