//! [`Trunk`]: the decoder from tokens to the final norm, forward and backward, for every family.
//!
//! GPT-2: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
//! Llama: Touvron et al. 2023, arXiv 2302.13971, section 2.2. The names of layers are those of
//! `transformers`. Shapes: T packed tokens, C width, H query and G key/value heads of D.

mod backward;
mod forward;
mod heads;
mod linear;
mod norm;

pub(super) use forward::Rows;

use super::activations::{Activations, Gradients};
use super::{ModelConfig, Window};
use crate::Result;
use crate::data::Capacity;
use crate::gpu::{Gpu, MemoryUse, Tensor};
use crate::kernels::nn::attention::{AttentionSizes, Heads};
use crate::kernels::nn::embedding::Window as TableWindow;
use crate::kernels::{Count, Size};

/// What a trunk is for: scoring alone keeps no activations for a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward only.
    Score,
    /// Forward and backward.
    Train,
}

/// The decoder's activations and gradients for one capacity.
pub struct Trunk {
    config: ModelConfig,
    capacity: Capacity,
    activations: Activations,
    gradients: Option<Gradients>,
    /// Cosines and sines of rotary positions.
    rotary: Option<Tensor>,
}

impl Trunk {
    /// Allocates activations, and gradients where it is to be trained.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        capacity: Capacity,
        purpose: Purpose,
    ) -> Result<Self> {
        let layers = config.num_hidden_layers;
        let (sets, gradients) = match purpose {
            Purpose::Score => (layers.min(2), None),
            Purpose::Train => (layers, Some(Gradients::new(gpu, config, capacity.tokens)?)),
        };
        Ok(Self {
            config: config.clone(),
            capacity,
            activations: Activations::new(
                &gpu.for_use(MemoryUse::Activations),
                config,
                capacity.tokens,
                sets,
            )?,
            gradients,
            rotary: heads::rotary_table(gpu, config)?,
        })
    }

    /// (T, C): the final norm's output.
    pub fn hidden(&self) -> &Tensor {
        &self.activations.final_norm.y
    }

    /// (T, C): where a head writes the gradient of [`Trunk::hidden`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for a trunk made to score.
    pub fn hidden_gradient(&self) -> Result<&Tensor> {
        Ok(&self.gradients()?.hidden)
    }

    fn gradients(&self) -> Result<&Gradients> {
        self.gradients
            .as_ref()
            .ok_or_else(|| crate::Error::shape("trunk", "it was made to score, not to train"))
    }

    pub(super) fn rows(&self) -> Size {
        Size::live(self.capacity.tokens, Count::Tokens)
    }

    /// The heads of each layer's attention.
    pub(super) fn heads(&self) -> Heads {
        self.config.heads()
    }

    fn attention_sizes(&self) -> AttentionSizes {
        AttentionSizes {
            tokens: self.capacity.tokens,
            tiles: Size::live(self.capacity.tiles(), Count::Tiles),
            heads: self.heads(),
            // Half of a context a token: what a batch of full sequences has.
            attended: self.capacity.tokens as u64 * self.config.max_position_embeddings as u64 / 2,
        }
    }
}

/// The rows of a table that a parameter's window holds.
fn table_window(window: &Window) -> TableWindow {
    TableWindow {
        first_row: window.first_row,
        rows: window.weight.shape()[0],
    }
}
