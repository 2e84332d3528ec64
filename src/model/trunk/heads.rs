//! What happens to queries and keys between their projection and attention: a norm of each head
//! (Qwen3) and rotary positions.

use super::Trunk;
use crate::Result;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::nn::qk_norm::{
    QkNormBackwardIo, QkNormIo, QkNormSizes, qk_norm_backward, qk_norm_forward,
};
use crate::kernels::nn::rope::{RopeIo, RopeSizes, Turn, rope, rope_table};
use crate::model::activations::Block;
use crate::model::layers::NormPart;
use crate::model::{ModelConfig, Parameters, Window};

/// The table of rotary positions, where a model has them.
pub(super) fn rotary_table(gpu: &Gpu, config: &ModelConfig) -> Result<Option<Tensor>> {
    let Some(rope) = &config.rope else {
        return Ok(None);
    };
    let (frequencies, scale) = rope.frequencies(config.head_dim);
    let table = rope_table(&frequencies, scale, config.max_position_embeddings);
    let shape = [table.len() / config.head_dim, config.head_dim];
    Tensor::from_slice(gpu, "rotary positions", &shape, &table).map(Some)
}

/// Where the rows of a pass stand in their texts.
#[derive(Clone, Copy)]
pub(super) struct Positions<'a> {
    /// (T) u32
    pub ids: &'a Tensor,
    pub counts: &'a Tensor,
}

impl Trunk {
    fn qk_norm_sizes(&self) -> QkNormSizes {
        QkNormSizes {
            rows: self.rows(),
            heads: self.heads(),
            eps: self.config.norm_eps as f32,
        }
    }

    fn turn(
        &self,
        plan: &mut Plan,
        qkv: &Tensor,
        positions: Positions<'_>,
        turn: Turn,
    ) -> Result<()> {
        let Some(table) = &self.rotary else {
            return Ok(());
        };
        let io = RopeIo {
            qkv,
            positions: positions.ids,
            table,
            counts: Some(positions.counts),
        };
        let sizes = RopeSizes {
            rows: self.rows(),
            heads: self.heads(),
        };
        rope(plan, &io, &sizes, turn)
    }

    /// The weights of the norms of query and key heads.
    fn head_norms<'a>(
        &self,
        parameters: &'a Parameters,
        layer: usize,
    ) -> Result<(&'a Window, &'a Window)> {
        let norm = |part| {
            let name = self.config.family.norm(layer, part);
            parameters.whole(&format!("{name}.weight"))
        };
        Ok((norm(NormPart::Query)?, norm(NormPart::Key)?))
    }

    /// From the projections to what attention reads.
    pub(super) fn heads_forward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        layer: usize,
        block: &Block,
        positions: Positions<'_>,
    ) -> Result<()> {
        if let Some(projected) = &block.projected {
            let (query, key) = self.head_norms(parameters, layer)?;
            let io = QkNormIo {
                x: projected,
                query_weight: &query.weight,
                key_weight: &key.weight,
                y: &block.qkv,
                counts: Some(positions.counts),
            };
            qk_norm_forward(plan, &io, &self.qk_norm_sizes())?;
        }
        self.turn(plan, &block.qkv, positions, Turn::Forward)
    }

    /// The gradient of what attention reads becomes, in place, that of the projections.
    pub(super) fn heads_backward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        layer: usize,
        block: &Block,
        positions: Positions<'_>,
    ) -> Result<()> {
        let gradients = self.gradients()?;
        self.turn(plan, &gradients.qkv, positions, Turn::Backward)?;
        let Some(projected) = &block.projected else {
            return Ok(());
        };
        let (query, key) = self.head_norms(parameters, layer)?;
        let io = QkNormBackwardIo {
            x: projected,
            query_weight: &query.weight,
            key_weight: &key.weight,
            dqkv: &gradients.qkv,
            dquery_weight: &query.gradient,
            dkey_weight: &key.gradient,
            partials: &gradients.partials,
            counts: Some(positions.counts),
        };
        qk_norm_backward(plan, &io, &self.qk_norm_sizes())
    }
}
