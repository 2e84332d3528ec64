//! RMSNorm of each query head and each key head (Yang et al. 2025, Qwen3, arXiv 2505.09388,
//! section 2), in rows as attention reads them.

use super::attention::Heads;
use super::rms_norm::{rms_norm_backward, rms_norm_forward};

/// The normalised heads of a row, with whether each is a query head.
fn normalised_heads(heads: Heads) -> impl Iterator<Item = (std::ops::Range<usize>, bool)> {
    (0..heads.query + heads.key_value).map(move |head| {
        let start = head * heads.width;
        (start..start + heads.width, head < heads.query)
    })
}

/// Each query and key head of each row of `x` `[T, (H + 2G) D]` normalised as by
/// [`rms_norm_forward`], with the weight `[D]` of its kind; value heads as they are.
pub fn qk_norm_forward(
    x: &[f64],
    query_weight: &[f64],
    key_weight: &[f64],
    heads: Heads,
    eps: f64,
) -> Vec<f64> {
    let mut y = x.to_vec();
    for row in y.chunks_exact_mut(heads.qkv_width()) {
        for (columns, of_query) in normalised_heads(heads) {
            let weight = if of_query { query_weight } else { key_weight };
            let normalised = rms_norm_forward(&row[columns.clone()], weight, eps).y;
            row[columns].copy_from_slice(&normalised);
        }
    }
    y
}

/// Gradients of [`qk_norm_forward`]'s inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct QkNormGradients {
    /// Of `x`, `[T, (H + 2G) D]`.
    pub dx: Vec<f64>,
    /// Of `query_weight`, `[D]`.
    pub dquery_weight: Vec<f64>,
    /// Of `key_weight`, `[D]`.
    pub dkey_weight: Vec<f64>,
}

/// Backward of [`qk_norm_forward`] from `dy` `[T, (H + 2G) D]`.
///
/// With `n = x rstd` and `g = dy weight`, in each query or key head `dx = rstd (g - n mean(g n))`;
/// the gradient of each weight is `Σ dy n` over rows and heads of its kind.
pub fn qk_norm_backward(
    x: &[f64],
    query_weight: &[f64],
    key_weight: &[f64],
    heads: Heads,
    eps: f64,
    dy: &[f64],
) -> QkNormGradients {
    let mut out = QkNormGradients {
        dx: dy.to_vec(),
        dquery_weight: vec![0.0; heads.width],
        dkey_weight: vec![0.0; heads.width],
    };
    let width = heads.qkv_width();
    for (x, dx) in x.chunks_exact(width).zip(out.dx.chunks_exact_mut(width)) {
        for (columns, of_query) in normalised_heads(heads) {
            let (weight, dweight) = if of_query {
                (query_weight, &mut out.dquery_weight)
            } else {
                (key_weight, &mut out.dkey_weight)
            };
            let x = &x[columns.clone()];
            let rstd = rms_norm_forward(x, weight, eps).rstd;
            let head = rms_norm_backward(x, weight, &rstd, &dx[columns.clone()]);
            dx[columns].copy_from_slice(&head.dx);
            dweight
                .iter_mut()
                .zip(head.dweight)
                .for_each(|(sum, of)| *sum += of);
        }
    }
    out
}
