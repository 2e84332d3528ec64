//! The forward pass, for any way to attend: over a packed run, or one token at a time with a cache.

use super::heads::Positions;
use super::linear::After;
use super::{Trunk, table_window};
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::nn::attention::{AttentionForwardIo, attention_forward};
use crate::kernels::nn::embedding::{self, EmbeddingIo, embedding_forward};
use crate::kernels::nn::swiglu::{SwigluIo, swiglu_forward};
use crate::model::activations::Block;
use crate::model::layers::{LinearPart, NormPart};
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
    /// (T, (H + 2G) D), read: queries, keys and values.
    pub qkv: &'a Tensor,
    /// (T, H D), to be written.
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
        self.embed(plan, parameters, rows)?;
        let config = &self.config;
        let step = Step {
            trunk: self,
            parameters,
            rows,
        };
        for layer in 0..config.num_hidden_layers {
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
        let last = self.activations.entering(config.num_hidden_layers);
        let name = config.family.final_norm();
        let given = (parameters, rows.counts);
        self.norm_forward(plan, given, name, (last, &self.activations.final_norm))
    }

    fn embed(&self, plan: &mut Plan, parameters: &Parameters, rows: Rows<'_>) -> Result<()> {
        let family = self.config.family;
        let positions = match family.position_table() {
            Some(name) => Some(embedding::Positions {
                ids: rows.positions,
                table: &parameters.whole(name)?.weight,
            }),
            None => None,
        };
        for window in parameters.windows(family.token_table())? {
            let io = EmbeddingIo {
                tokens: rows.tokens,
                token_table: &window.weight,
                positions,
                out: &self.activations.embedded,
                counts: Some(rows.counts),
            };
            embedding_forward(plan, &io, self.rows(), table_window(window))?;
        }
        Ok(())
    }
}

/// What the parts of a forward pass have in common.
struct Step<'a> {
    trunk: &'a Trunk,
    parameters: &'a Parameters,
    rows: Rows<'a>,
}

impl Step<'_> {
    /// Queries, keys and values of the block's normed input.
    fn project_qkv(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let trunk = self.trunk;
        let x = trunk.activations.entering(layer);
        self.norm(plan, layer, NormPart::Attention, (x, block))?;
        let out = block.projected.as_ref().unwrap_or(&block.qkv);
        let input = &block.attention_norm.y;
        self.linear(plan, layer, LinearPart::Qkv, (input, out), After::Store)?;
        let positions = Positions {
            ids: self.rows.positions,
            counts: self.rows.counts,
        };
        trunk.heads_forward(plan, self.parameters, layer, block, positions)
    }

    /// `middle = x + output(attended)`, `out = middle + down(act(up(norm(middle))))`
    fn finish_block(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let after = After::Residual(self.trunk.activations.entering(layer));
        let io = (&block.attended, &block.middle);
        self.linear(plan, layer, LinearPart::Output, io, after)?;
        self.norm(plan, layer, NormPart::Mlp, (&block.middle, block))?;
        let input = &block.mlp_norm.y;
        if self.trunk.config.family.gated() {
            let io = (input, &block.pre);
            self.linear(plan, layer, LinearPart::Up, io, After::Store)?;
            let io = SwigluIo {
                gate_up: &block.pre,
                y: &block.act,
                counts: Some(self.rows.counts),
            };
            swiglu_forward(plan, &io, self.trunk.rows())?;
        } else {
            let (io, after) = ((input, &block.act), After::Gelu { pre: &block.pre });
            self.linear(plan, layer, LinearPart::Up, io, after)?;
        }
        let after = After::Residual(&block.middle);
        self.linear(
            plan,
            layer,
            LinearPart::Down,
            (&block.act, &block.out),
            after,
        )
    }

    fn norm(
        &self,
        plan: &mut Plan,
        layer: usize,
        part: NormPart,
        (x, block): (&Tensor, &Block),
    ) -> Result<()> {
        let name = self.trunk.config.family.norm(layer, part);
        let given = (self.parameters, self.rows.counts);
        self.trunk
            .norm_forward(plan, given, &name, (x, block.norm(part)))
    }

    fn linear(
        &self,
        plan: &mut Plan,
        layer: usize,
        part: LinearPart,
        io: (&Tensor, &Tensor),
        after: After<'_>,
    ) -> Result<()> {
        let linear = self.trunk.linear(self.parameters, layer, part)?;
        self.trunk
            .linear_forward(plan, &linear, self.rows.counts, io, after)
    }
}
