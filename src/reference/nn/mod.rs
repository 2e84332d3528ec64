//! The parts of a network: matmul, embeddings, norms, activations, attention, cross-entropy.

pub mod attention;
pub mod attention_decode;
pub mod copy_rows;
pub mod cross_entropy;
pub mod embedding;
pub mod gelu;
pub mod layer_norm;
pub mod matmul;
pub mod qk_norm;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

/// `Σ_i a_i b_i`.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
