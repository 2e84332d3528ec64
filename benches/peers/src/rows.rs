//! What is measured: the rows of the table, their sizes, and who takes part.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Hand-written kernels in recorded plans, on wgpu.
    Prefgrad,
    /// Tensors with autodiff, fusion and autotune, on wgpu.
    Burn,
    /// Tensors with autodiff, on the CPU.
    Candle,
}

/// A piece of work that every peer does with the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Row {
    /// A whole update of a reward model: 4 layers of width 256, 8 pairs of 128 tokens
    StepA,
    /// The same for GPT-2 124M, 2 pairs of 128 tokens
    StepB,
    /// A product of two matrices of 512 x 512
    #[value(name = "matmul_512")]
    Matmul512,
    /// A product of two matrices of 1024 x 1024
    #[value(name = "matmul_1024")]
    Matmul1024,
    /// Causal attention, forward and backward: 2 sequences of 128, 4 heads of 64
    Attention,
    /// LayerNorm, forward and backward, of 1024 rows of 768
    LayerNorm,
    /// Log-probability of one token in each of 1024 rows of 8192 logits
    LogSoftmax,
    /// PPO's clipped loss from 512 rows of 8192 logits, and the gradient of the logits
    PpoLoss,
}

/// The name by which an enum's value is given on the command line.
fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self))
    }
}

impl Row {
    /// Whether it is a whole update, whose loss must fall.
    pub fn is_step(self) -> bool {
        matches!(self, Self::StepA | Self::StepB)
    }
}

/// A reward model of GPT-2's shape and its batch.
#[derive(Debug, Clone, Copy)]
pub struct StepSizes {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub vocab: usize,
    pub positions: usize,
    pub pairs: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
}

pub const STEP_A: StepSizes = StepSizes {
    layers: 4,
    width: 256,
    heads: 4,
    vocab: 8192,
    positions: 1024,
    pairs: 8,
    tokens: 128,
};

pub const STEP_B: StepSizes = StepSizes {
    layers: 12,
    width: 768,
    heads: 12,
    vocab: 50257,
    positions: 1024,
    pairs: 2,
    tokens: 128,
};

impl StepSizes {
    /// Texts in the batch.
    pub fn sequences(&self) -> usize {
        2 * self.pairs
    }
}

/// AdamW's constants, the same for all.
pub const LEARNING_RATE: f64 = 1e-4;
pub const BETA_1: f64 = 0.9;
pub const BETA_2: f64 = 0.999;
pub const ADAM_EPS: f64 = 1e-8;
pub const WEIGHT_DECAY: f64 = 0.01;

pub const NORM_EPS: f64 = 1e-5;

/// Sequences, tokens of each, heads, width of a head.
pub const ATTENTION: [usize; 4] = [2, 128, 4, 64];
/// Rows and columns.
pub const LAYER_NORM: [usize; 2] = [1024, 768];
/// Rows and vocabulary.
pub const LOG_SOFTMAX: [usize; 2] = [1024, 8192];
/// Rows and vocabulary.
pub const PPO: [usize; 2] = [512, 8192];
/// PPO's ratio is clipped to 1 ± this.
pub const CLIP_RANGE: f64 = 0.2;
