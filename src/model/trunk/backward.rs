//! The backward pass, from the gradient of the hidden states to that of every parameter.

use super::heads::Positions;
use super::{Trunk, table_window};
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::nn::attention::{AttentionBackwardIo, attention_backward};
use crate::kernels::nn::embedding::{EmbeddingBackwardIo, embedding_backward};
use crate::kernels::nn::layer_norm::InputGradient;
use crate::kernels::nn::matmul::Epilogue;
use crate::kernels::nn::swiglu::{SwigluBackwardIo, swiglu_backward};
use crate::kernels::{Count, Size};
use crate::model::activations::Block;
use crate::model::layers::{LinearPart, NormPart};
use crate::model::{DeviceBatch, DeviceLists, Parameters, Window};

impl Trunk {
    /// Appends the backward pass from [`Trunk::hidden_gradient`] to the parameters' gradients,
    /// which it adds to.
    ///
    /// # Errors
    ///
    /// What the kernels refuse; [`crate::Error::Shape`] for a trunk made to score.
    pub fn backward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        batch: &DeviceBatch,
    ) -> Result<()> {
        let (gradients, family) = (self.gradients()?, self.config.family);
        let layers = self.config.num_hidden_layers;
        self.norm_backward(
            plan,
            (parameters, &batch.counts),
            family.final_norm(),
            (
                self.activations.entering(layers),
                &self.activations.final_norm,
            ),
            (&gradients.hidden, InputGradient::Overwrite),
        )?;
        let pass = Pass {
            trunk: self,
            parameters,
            batch,
        };
        for layer in (0..layers).rev() {
            let block = self.activations.block(layer);
            pass.mlp(plan, layer, block)?;
            pass.attention(plan, layer, block)?;
        }
        let tokens = Size::live(self.capacity.tokens, Count::TokenLists);
        for window in parameters.windows(family.token_table())? {
            pass.table(plan, window, (&batch.token_lists, tokens))?;
        }
        let Some(name) = family.position_table() else {
            return Ok(());
        };
        let positions = Size::live(self.capacity.tokens, Count::PositionLists);
        let lists = (&batch.position_lists, positions);
        pass.table(plan, parameters.whole(name)?, lists)
    }
}

/// What the parts of a backward pass have in common.
struct Pass<'a> {
    trunk: &'a Trunk,
    parameters: &'a Parameters,
    batch: &'a DeviceBatch,
}

impl Pass<'_> {
    /// Through the feed-forward half of a block, of which the stream's gradient is the output's.
    fn mlp(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let gradients = self.trunk.gradients()?;
        let io = (&block.act, &gradients.stream);
        match &gradients.act {
            Some(dact) => {
                let into = (dact, Epilogue::Store);
                self.linear(plan, layer, LinearPart::Down, io, into)?;
                let io = SwigluBackwardIo {
                    gate_up: &block.pre,
                    dy: dact,
                    dgate_up: &gradients.pre,
                    counts: Some(&self.batch.counts),
                };
                swiglu_backward(plan, &io, self.trunk.rows())?;
            }
            None => {
                let epilogue = Epilogue::GeluBackward { pre: &block.pre };
                let into = (&gradients.pre, epilogue);
                self.linear(plan, layer, LinearPart::Down, io, into)?;
            }
        }
        let io = (&block.mlp_norm.y, &gradients.pre);
        let into = (&gradients.normed, Epilogue::Store);
        self.linear(plan, layer, LinearPart::Up, io, into)?;
        self.norm(plan, layer, NormPart::Mlp, (&block.middle, block))
    }

    /// Through the attention half of a block.
    fn attention(&self, plan: &mut Plan, layer: usize, block: &Block) -> Result<()> {
        let (trunk, batch) = (self.trunk, self.batch);
        let gradients = trunk.gradients()?;
        let io = (&block.attended, &gradients.stream);
        let into = (&gradients.attended, Epilogue::Store);
        self.linear(plan, layer, LinearPart::Output, io, into)?;
        attention_backward(
            plan,
            &AttentionBackwardIo {
                qkv: &block.qkv,
                segments: &batch.segments,
                tiles: &batch.tiles,
                out: &block.attended,
                lse: &block.lse,
                dout: &gradients.attended,
                delta: &gradients.delta,
                dqkv: &gradients.qkv,
                counts: Some(&batch.counts),
            },
            &trunk.attention_sizes(),
        )?;
        let positions = Positions {
            ids: &batch.positions,
            counts: &batch.counts,
        };
        trunk.heads_backward(plan, self.parameters, layer, block, positions)?;
        let io = (&block.attention_norm.y, &gradients.qkv);
        let into = (&gradients.normed, Epilogue::Store);
        self.linear(plan, layer, LinearPart::Qkv, io, into)?;
        let x = trunk.activations.entering(layer);
        self.norm(plan, layer, NormPart::Attention, (x, block))
    }

    fn linear(
        &self,
        plan: &mut Plan,
        layer: usize,
        part: LinearPart,
        io: (&Tensor, &Tensor),
        into: (&Tensor, Epilogue<'_>),
    ) -> Result<()> {
        let linear = self.trunk.linear(self.parameters, layer, part)?;
        self.trunk
            .linear_backward(plan, &linear, &self.batch.counts, io, into)
    }

    /// Through a norm, whose output's gradient is in `normed`, into the stream's.
    fn norm(
        &self,
        plan: &mut Plan,
        layer: usize,
        part: NormPart,
        (x, block): (&Tensor, &Block),
    ) -> Result<()> {
        let dy = (&self.trunk.gradients()?.normed, InputGradient::Add);
        let name = self.trunk.config.family.norm(layer, part);
        let given = (self.parameters, &self.batch.counts);
        self.trunk
            .norm_backward(plan, given, &name, (x, block.norm(part)), dy)
    }

    /// Into the rows of a table that the batch used.
    fn table(
        &self,
        plan: &mut Plan,
        window: &Window,
        (lists, size): (&DeviceLists, Size),
    ) -> Result<()> {
        let io = EmbeddingBackwardIo {
            dout: &self.trunk.gradients()?.stream,
            lists: &lists.lists,
            list_rows: &lists.rows,
            dtable: &window.gradient,
            counts: Some(&self.batch.counts),
        };
        embedding_backward(plan, &io, size, table_window(window))
    }
}
