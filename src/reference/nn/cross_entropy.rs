//! Next-token cross-entropy together with the language-model head.

use super::dot;

/// Row `row` of the hidden states predicts `token`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The hidden row.
    pub row: u32,
    /// The token it should predict.
    pub token: u32,
    /// Factor of this target's loss.
    pub weight: f64,
}

/// What [`cross_entropy`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// `scale Σ_n weight_n (-logprob_n)`.
    pub loss: f64,
    /// Log-probability of each target's token, `[N]`, without weight or scale.
    pub logprobs: Vec<f64>,
    /// Gradient of `loss` with respect to `hidden`, `[T, C]`; zero in rows without a target.
    pub dhidden: Vec<f64>,
    /// Gradient of `loss` with respect to `head`, `[V, C]`.
    pub dhead: Vec<f64>,
}

/// Cross-entropy of the logits `z = head · hidden[row]` of each target, and its gradients.
///
/// `logprob = z[token] - ln Σ_v exp(z_v)`; `dz_v = scale weight (p_v - 1[v = token])` with
/// `p = softmax(z)`, `dhidden[row] += Σ_v dz_v head_v`, `dhead_v += dz_v hidden[row]`.
///
/// `hidden` is `[T, C]`, `head` `[V, C]` (a tied token embedding has this layout), `width` is `C`.
pub fn cross_entropy(
    hidden: &[f64],
    head: &[f64],
    targets: &[Target],
    width: usize,
    scale: f64,
) -> CrossEntropy {
    let mut out = CrossEntropy {
        loss: 0.0,
        logprobs: Vec::with_capacity(targets.len()),
        dhidden: vec![0.0; hidden.len()],
        dhead: vec![0.0; head.len()],
    };
    for target in targets {
        let row = target.row as usize * width;
        let state = &hidden[row..row + width];
        let logits: Vec<f64> = head.chunks_exact(width).map(|w| dot(w, state)).collect();
        let lse = log_sum_exp(&logits);
        let logprob = logits[target.token as usize] - lse;
        out.loss -= scale * target.weight * logprob;
        out.logprobs.push(logprob);
        for (v, z) in logits.iter().enumerate() {
            let hit = if v == target.token as usize { 1.0 } else { 0.0 };
            let dz = scale * target.weight * ((z - lse).exp() - hit);
            for c in 0..width {
                out.dhidden[row + c] += dz * head[v * width + c];
                out.dhead[v * width + c] += dz * state[c];
            }
        }
    }
    out
}

/// `ln Σ_j exp(x_j)`, with the maximum taken out so that nothing overflows.
pub fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}
