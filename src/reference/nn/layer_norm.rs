//! LayerNorm over rows (Ba, Kiros and Hinton 2016, arXiv 1607.06450, equation 4).

use crate::reference::reduce::{mean, variance};

/// What [`layer_norm_forward`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// Output, `[rows, C]`.
    pub y: Vec<f64>,
    /// Mean of each row, `[rows]`.
    pub mean: Vec<f64>,
    /// `1 / sqrt(variance + eps)` of each row, `[rows]`.
    pub rstd: Vec<f64>,
}

/// `y = (x - mean) rstd weight + bias` for each row of `x` `[rows, C]`, with the population
/// variance (divided by `C`) in `rstd = 1 / sqrt(variance + eps)`. `weight` and `bias` are `[C]`.
pub fn layer_norm_forward(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> LayerNorm {
    let width = weight.len();
    assert_eq!((x.len() % width, bias.len()), (0, width), "rows of width C");
    let mut out = LayerNorm {
        y: Vec::with_capacity(x.len()),
        mean: Vec::new(),
        rstd: Vec::new(),
    };
    for row in x.chunks_exact(width) {
        let mean = mean(row);
        let rstd = 1.0 / (variance(row) + eps).sqrt();
        for c in 0..width {
            out.y.push((row[c] - mean) * rstd * weight[c] + bias[c]);
        }
        out.mean.push(mean);
        out.rstd.push(rstd);
    }
    out
}

/// Gradients of [`layer_norm_forward`]'s inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormGradients {
    /// Of `x`, `[rows, C]`.
    pub dx: Vec<f64>,
    /// Of `weight`, `[C]`.
    pub dweight: Vec<f64>,
    /// Of `bias`, `[C]`.
    pub dbias: Vec<f64>,
}

/// Backward of [`layer_norm_forward`] from `dy` `[rows, C]` and the forward's `mean` and `rstd`.
///
/// With `n = (x - mean) rstd` and `g = dy weight`, for each row
/// `dx = rstd (g - mean(g) - n mean(g n))`; `dweight = Σ_rows dy n`, `dbias = Σ_rows dy`.
pub fn layer_norm_backward(
    x: &[f64],
    weight: &[f64],
    mean: &[f64],
    rstd: &[f64],
    dy: &[f64],
) -> LayerNormGradients {
    let width = weight.len();
    assert_eq!(x.len(), dy.len(), "dy has the shape of x");
    let mut out = LayerNormGradients {
        dx: Vec::with_capacity(x.len()),
        dweight: vec![0.0; width],
        dbias: vec![0.0; width],
    };
    for (row, (x, dy)) in x
        .chunks_exact(width)
        .zip(dy.chunks_exact(width))
        .enumerate()
    {
        let (mean, rstd) = (mean[row], rstd[row]);
        let normalised: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
        let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
        let mean_g = g.iter().sum::<f64>() / width as f64;
        let mean_gn = super::dot(&g, &normalised) / width as f64;
        for c in 0..width {
            out.dx
                .push(rstd * (g[c] - mean_g - normalised[c] * mean_gn));
            out.dweight[c] += dy[c] * normalised[c];
            out.dbias[c] += dy[c];
        }
    }
    out
}
