//! The forward pass, for any way to attend: over a packed run, or one token at a time with a cache.

use super::{Linear, Trunk, table_window};
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::Size;
use crate::kernels::nn::attention::{AttentionForwardIo, attention_forward};
use crate::kernels::nn::embedding::{EmbeddingIo, Positions, embedding_forward};
use crate::kernels::nn::layer_norm::{LayerNormIo, layer_norm_forward};
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use crate::model::activations::{Block, Norm};
use crate::model::{DeviceBatch, Parameters};

/// The rows that enter the decoder.
#[derive(Clone, Copy)]
pub(in crate::model) struct Rows<'a> {
    /// (T) u32: token ids.
    pub tokens: &'a Tensor,
    /// (T) u32: their positions.
    pub positions: &'a Tensor,
    /// The live sizes, of which `tokens` counts.
    pub counts: &'a Tensor,
}

/// What a layer's attention works on.
#[derive(Clone, Copy)]
pub(in crate::model) struct Attend<'a> {
    /// The layer, from 0.
    pub layer: usize,
    /// (T, 3C), read: queries, keys and values.
    pub qkv: &'a Tensor,
    /// (T, C), to be written.
    pub out: &'a Tensor,
    /// (T, H), to be written for a backward pass.
    pub lse: &'a Tensor,
}

impl Trunk {
    /// Appends the forward pass.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn forward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        batch: &DeviceBatch,
    ) -> Result<()> {
        let rows = Rows {
            tokens: &batch.tokens,
            positions: &batch.positions,
            counts: &batch.counts,
        };
        self.forward_with(plan, parameters, rows, |plan, attend| {
            self.attend_packed(plan, batch, attend)
        })
    }

    /// Appends causal attention over a packed run.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub(in crate::model) fn attend_packed(
        &self,
        plan: &mut Plan,
        batch: &DeviceBatch,
        attend: Attend<'_>,
    ) -> Result<()> {
        attention_forward(
            plan,
            &AttentionForwardIo {
                qkv: attend.qkv,
                segments: &batch.segments,
                tiles: &batch.tiles,
                out: attend.out,
                lse: attend.lse,
                counts: Some(&batch.counts),
            },
            &self.attention_sizes(),
        )
    }

    /// Appends the forward pass of `rows`, with each layer's attention by `attend`.
    ///
    /// # Errors
    ///
    /// What the kernels and `attend` refuse.
    pub(in crate::model) fn forward_with(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        rows: Rows<'_>,
        mut attend: impl FnMut(&mut Plan, Attend<'_>) -> Result<()>,
    ) -> Result<()> {
        let positions = Positions {
            ids: rows.positions,
            table: &parameters.whole("transformer.wpe.weight")?.weight,
        };
        for window in parameters.windows("transformer.wte.weight")? {
            embedding_forward(
                plan,
                &EmbeddingIo {
                    tokens: rows.tokens,
                    token_table: &window.weight,
                    positions: Some(positions),
                    out: &self.activations.embedded,
                    counts: Some(rows.counts),
                },
                self.rows(),
                table_window(window),
            )?;
        }
        let step = Step {
            trunk: self,
            parameters,
            counts: rows.counts,
        };
        for layer in 0..self.config.n_layer {
            let block = self.activations.block(layer);
            step.project_qkv(plan, layer, block)?;
            attend(
                plan,
                Attend {
                    layer,
                    qkv: &block.qkv,
                    out: &block.attended,
                    lse: &block.lse,
                },
            )?;
            step.finish_block(plan, layer, block)?;
        }
        let last = self.activations.entering(self.config.n_layer);
        step.norm(plan, "transformer.ln_f", last, &self.activations.ln_f)
    }
}

/// What the parts of a forward pass have in common.
struct Step<'a> {
    trunk: &'a Trunk,
    parameters: &'a Parameters,
    counts: &'a Tensor,
}

impl Step<'_> {
    /// `qkv = c_attn(ln_1(x))`
    fn project_qkv(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        let x = self.trunk.activations.entering(layer);
        self.norm(plan, &name("ln_1"), x, &block.ln_1)?;
        let c_attn = self.linear(&name("attn.c_attn"))?;
        let bias = &c_attn.bias.weight;
        let epilogue = Epilogue::Bias { bias };
        self.apply(plan, &c_attn, &block.ln_1.y, &block.qkv, epilogue)
    }

    /// `middle = x + c_proj(attended)`, `out = middle + c_proj(gelu(c_fc(ln_2(middle))))`
    fn finish_block(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        let c_proj = self.linear(&name("attn.c_proj"))?;
        let epilogue = Epilogue::BiasResidual {
            bias: &c_proj.bias.weight,
            residual: self.trunk.activations.entering(layer),
        };
        self.apply(plan, &c_proj, &block.attended, &block.middle, epilogue)?;
        self.norm(plan, &name("ln_2"), &block.middle, &block.ln_2)?;
        let c_fc = self.linear(&name("mlp.c_fc"))?;
        let epilogue = Epilogue::BiasGelu {
            bias: &c_fc.bias.weight,
            pre: &block.pre,
        };
        self.apply(plan, &c_fc, &block.ln_2.y, &block.act, epilogue)?;
        let c_proj = self.linear(&name("mlp.c_proj"))?;
        let epilogue = Epilogue::BiasResidual {
            bias: &c_proj.bias.weight,
            residual: &block.middle,
        };
        self.apply(plan, &c_proj, &block.act, &block.out, epilogue)
    }

    fn linear(&self, name: &str) -> Result<Linear<'_>> {
        self.trunk.linear(self.parameters, name)
    }

    fn norm(&self, plan: &mut Plan, name: &str, x: &Tensor, norm: &Norm) -> Result<()> {
        let io = LayerNormIo {
            x,
            weight: &self.parameters.whole(&format!("{name}.weight"))?.weight,
            bias: &self.parameters.whole(&format!("{name}.bias"))?.weight,
            y: &norm.y,
            mean: &norm.mean,
            rstd: &norm.rstd,
            counts: Some(self.counts),
        };
        layer_norm_forward(plan, &io, &self.trunk.norm_sizes())
    }

    /// `out = epilogue(x W)`: x (T, inputs), W (inputs, outputs).
    fn apply(
        &self,
        plan: &mut Plan,
        linear: &Linear<'_>,
        x: &Tensor,
        out: &Tensor,
        epilogue: Epilogue<'_>,
    ) -> Result<()> {
        let io = MatmulIo {
            a: Matrix::whole(x),
            b: Matrix::whole(&linear.weight.weight),
            out: Matrix::whole(out),
            epilogue,
            counts: Some(self.counts),
        };
        let sizes = MatmulSizes {
            layout: Layout::Nn,
            m: self.trunk.rows(),
            n: linear.outputs,
            k: Size::fixed(linear.inputs),
        };
        matmul(plan, &io, &sizes)
    }
}
