//! Layers of a transformer, forward and backward.

pub mod attention;
pub mod attention_decode;
pub mod attention_tiled;
pub mod bias_gradient;
pub mod copy_rows;
pub mod cross_entropy;
pub mod cross_entropy_statistics;
pub mod embedding;
pub mod gelu;
pub mod language_head;
pub mod layer_norm;
pub mod matmul;
pub mod matmul_cooperative;
#[cfg(not(target_arch = "wasm32"))]
mod matmul_measure;
pub mod matmul_tiled;
pub mod norm;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
pub mod scalar_head;
pub mod swiglu;
pub mod zero_rows;

/// What happens to the gradient of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputGradient {
    /// `dx = ...`
    Overwrite,
    /// `dx += ...`, where the input has another consumer, such as a residual connection.
    Add,
}
