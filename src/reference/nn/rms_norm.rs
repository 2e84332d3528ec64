//! RMSNorm over rows (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4).

/// What [`rms_norm_forward`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNorm {
    /// Output, `[rows, C]`.
    pub y: Vec<f64>,
    /// `1 / sqrt(mean(x²) + eps)` of each row, `[rows]`.
    pub rstd: Vec<f64>,
}

/// `y = x rstd weight` for each row of `x` `[rows, C]`, with `rstd = 1 / sqrt(mean(x²) + eps)`.
/// `weight` is `[C]`.
pub fn rms_norm_forward(x: &[f64], weight: &[f64], eps: f64) -> RmsNorm {
    let width = weight.len();
    assert_eq!(x.len() % width, 0, "rows of width C");
    let mut out = RmsNorm {
        y: Vec::with_capacity(x.len()),
        rstd: Vec::new(),
    };
    for row in x.chunks_exact(width) {
        let rstd = 1.0 / (super::dot(row, row) / width as f64 + eps).sqrt();
        out.y
            .extend(row.iter().zip(weight).map(|(x, w)| x * rstd * w));
        out.rstd.push(rstd);
    }
    out
}

/// Gradients of [`rms_norm_forward`]'s inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNormGradients {
    /// Of `x`, `[rows, C]`.
    pub dx: Vec<f64>,
    /// Of `weight`, `[C]`.
    pub dweight: Vec<f64>,
}

/// Backward of [`rms_norm_forward`] from `dy` `[rows, C]` and the forward's `rstd`.
///
/// With `n = x rstd` and `g = dy weight`, for each row `dx = rstd (g - n mean(g n))`;
/// `dweight = Σ_rows dy n`.
pub fn rms_norm_backward(x: &[f64], weight: &[f64], rstd: &[f64], dy: &[f64]) -> RmsNormGradients {
    let width = weight.len();
    assert_eq!(x.len(), dy.len(), "dy has the shape of x");
    let mut out = RmsNormGradients {
        dx: Vec::with_capacity(x.len()),
        dweight: vec![0.0; width],
    };
    let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
    for ((x, dy), rstd) in rows.zip(rstd) {
        let normalised: Vec<f64> = x.iter().map(|x| x * rstd).collect();
        let g: Vec<f64> = dy.iter().zip(weight).map(|(dy, w)| dy * w).collect();
        let mean_gn = super::dot(&g, &normalised) / width as f64;
        for c in 0..width {
            out.dx.push(rstd * (g[c] - normalised[c] * mean_gn));
            out.dweight[c] += dy[c] * normalised[c];
        }
    }
    out
}
