//! Under which names the parts of a family's layers stand among a model's parameters.
//!
//! The names are those of `transformers`. Matrices that read the same input are stacked: kernels
//! see `qkv_proj` and `gate_up_proj` as one matrix each, files have them apart.

use super::{Family, ModelConfig};

/// A norm of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NormPart {
    /// Before attention.
    Attention,
    /// Of each query head.
    Query,
    /// Of each key head.
    Key,
    /// Before the feed-forward layers.
    Mlp,
}

/// A linear layer of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinearPart {
    /// To queries, keys and values.
    Qkv,
    /// From attention's output into the residual stream.
    Output,
    /// To the inner width; gate and up where the activation is gated.
    Up,
    /// From the inner width into the residual stream.
    Down,
}

impl LinearPart {
    pub(super) const ALL: [Self; 4] = [Self::Qkv, Self::Output, Self::Up, Self::Down];
}

impl Family {
    fn block(self, layer: usize, part: &str) -> String {
        match self {
            Self::Gpt2 => format!("transformer.h.{layer}.{part}"),
            _ => format!("model.layers.{layer}.{part}"),
        }
    }

    /// How the names of a norm's parameters begin, up to the last dot.
    pub(super) fn norm(self, layer: usize, part: NormPart) -> String {
        let name = match (self, part) {
            (Self::Gpt2, NormPart::Attention) => "ln_1",
            (Self::Gpt2, NormPart::Mlp) => "ln_2",
            (_, NormPart::Attention) => "input_layernorm",
            (_, NormPart::Query) => "self_attn.q_norm",
            (_, NormPart::Key) => "self_attn.k_norm",
            (_, NormPart::Mlp) => "post_attention_layernorm",
        };
        self.block(layer, name)
    }

    /// How the names of a linear layer's parameters begin, up to the last dot.
    pub(super) fn linear(self, layer: usize, part: LinearPart) -> String {
        let name = match (self, part) {
            (Self::Gpt2, LinearPart::Qkv) => "attn.c_attn",
            (Self::Gpt2, LinearPart::Output) => "attn.c_proj",
            (Self::Gpt2, LinearPart::Up) => "mlp.c_fc",
            (Self::Gpt2, LinearPart::Down) => "mlp.c_proj",
            (_, LinearPart::Qkv) => "self_attn.qkv_proj",
            (_, LinearPart::Output) => "self_attn.o_proj",
            (_, LinearPart::Up) => "mlp.gate_up_proj",
            (_, LinearPart::Down) => "mlp.down_proj",
        };
        self.block(layer, name)
    }

    /// The norm after the last block.
    pub(super) fn final_norm(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.ln_f",
            _ => "model.norm",
        }
    }

    /// The token table.
    pub(super) fn token_table(self) -> &'static str {
        match self {
            Self::Gpt2 => "transformer.wte.weight",
            _ => "model.embed_tokens.weight",
        }
    }

    /// The learned table of positions.
    pub(super) fn position_table(self) -> Option<&'static str> {
        (self == Self::Gpt2).then_some("transformer.wpe.weight")
    }

    /// Whether matrices of linear layers are stored (in, out), as GPT-2's `Conv1D` has them, and
    /// not (out, in).
    pub(super) fn input_major(self) -> bool {
        self == Self::Gpt2
    }

    /// Whether norms subtract the mean and have biases.
    pub(super) fn layer_norm(self) -> bool {
        self == Self::Gpt2
    }

    /// Whether the feed-forward layer is gated.
    pub(super) fn gated(self) -> bool {
        self != Self::Gpt2
    }
}

impl ModelConfig {
    /// Inputs and outputs of a linear layer, and whether it has biases.
    pub(super) fn linear(&self, part: LinearPart) -> (usize, usize, bool) {
        let (width, inner) = (self.hidden_size, self.intermediate_size);
        let heads = self.heads();
        match part {
            LinearPart::Qkv => (width, heads.qkv_width(), self.qkv_bias),
            LinearPart::Output => (heads.out_width(), width, self.output_bias),
            LinearPart::Up => (width, self.up_width(), self.mlp_bias),
            LinearPart::Down => (inner, width, self.mlp_bias),
        }
    }

    /// Names, up to the last dot, and rows of the matrices that a linear layer consists of in files
    /// that store them (out, in).
    pub(super) fn stacked(&self, layer: usize, part: LinearPart) -> Vec<(String, usize)> {
        let (heads, inner) = (self.heads(), self.intermediate_size);
        let keys = heads.key_value * heads.width;
        let parts = match part {
            LinearPart::Qkv => vec![
                ("self_attn.q_proj", heads.out_width()),
                ("self_attn.k_proj", keys),
                ("self_attn.v_proj", keys),
            ],
            LinearPart::Up => vec![("mlp.gate_proj", inner), ("mlp.up_proj", inner)],
            LinearPart::Output | LinearPart::Down => {
                return vec![(self.family.linear(layer, part), self.hidden_size)];
            }
        };
        let name = |(name, rows): (&str, usize)| (self.family.block(layer, name), rows);
        parts.into_iter().map(name).collect()
    }

    /// Width of what enters the activation.
    pub(super) fn up_width(&self) -> usize {
        match self.family.gated() {
            true => 2 * self.intermediate_size,
            false => self.intermediate_size,
        }
    }
}
