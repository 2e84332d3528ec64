//! Log-probabilities of tokens, and the entropy of the distributions they come from.

use crate::reference::nn::cross_entropy::log_sum_exp;
use crate::reference::nn::dot;

/// Row `row` of the hidden states predicts `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The hidden row.
    pub row: u32,
    /// The token that came.
    pub token: u32,
}

/// What a language model says of a target's token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// `z[token] - ln Σ_v exp(z_v)`.
    pub logprob: f64,
    /// `-Σ_v p_v ln p_v`.
    pub entropy: f64,
    /// `ln Σ_v exp(z_v)`.
    pub lse: f64,
}

/// The gradient of a loss with respect to a target's log-probability and entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenGradient {
    /// Of the log-probability.
    pub dlogprob: f64,
    /// Of the entropy.
    pub dentropy: f64,
}

/// Gradients of [`token_logprob_forward`]'s inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobGradients {
    /// Of `hidden`, `[T, C]`; zero in rows without a target.
    pub dhidden: Vec<f64>,
    /// Of `head`, `[V, C]`.
    pub dhead: Vec<f64>,
}

/// The figures of each target, `[N]`, from `z = head · hidden[row] / temperature`, `p = softmax(z)`.
///
/// `hidden` is `[T, C]`, `head` `[V, C]`, `width` is `C`.
pub fn token_logprob_forward(
    hidden: &[f64],
    head: &[f64],
    targets: &[Target],
    width: usize,
    temperature: f64,
) -> Vec<TokenLogprob> {
    let figures = |target: &Target| {
        let logits = logits(hidden, head, target, width, temperature);
        let logprobs = logprobs(&logits);
        TokenLogprob {
            logprob: logprobs[target.token as usize],
            entropy: entropy(&logprobs),
            lse: log_sum_exp(&logits),
        }
    };
    targets.iter().map(figures).collect()
}

/// Backward of [`token_logprob_forward`] from `gradients` `[N]`:
///
/// `dz_v = dlogprob (1[v = token] - p_v) - dentropy p_v (ln p_v + entropy)`,
/// `dhidden[row] += Σ_v dz_v head_v / temperature`, `dhead_v += dz_v hidden[row] / temperature`.
pub fn token_logprob_backward(
    hidden: &[f64],
    head: &[f64],
    targets: &[Target],
    gradients: &[TokenGradient],
    (width, temperature): (usize, f64),
) -> TokenLogprobGradients {
    assert_eq!(targets.len(), gradients.len(), "one gradient a target");
    let mut out = TokenLogprobGradients {
        dhidden: vec![0.0; hidden.len()],
        dhead: vec![0.0; head.len()],
    };
    for (target, gradient) in targets.iter().zip(gradients) {
        let logits = logits(hidden, head, target, width, temperature);
        let logprobs = logprobs(&logits);
        let entropy = entropy(&logprobs);
        let row = target.row as usize * width;
        for (v, &logprob) in logprobs.iter().enumerate() {
            let p = logprob.exp();
            // 1[v = token] - p, without taking p from a number next to it.
            let error = if v == target.token as usize {
                -logprob.exp_m1()
            } else {
                -p
            };
            let dz = gradient.dlogprob * error - gradient.dentropy * p * (logprob + entropy);
            for c in 0..width {
                out.dhidden[row + c] += dz * head[v * width + c] / temperature;
                out.dhead[v * width + c] += dz * hidden[row + c] / temperature;
            }
        }
    }
    out
}

fn logits(
    hidden: &[f64],
    head: &[f64],
    target: &Target,
    width: usize,
    temperature: f64,
) -> Vec<f64> {
    let state = &hidden[target.row as usize * width..][..width];
    let rows = head.chunks_exact(width);
    rows.map(|w| dot(w, state) / temperature).collect()
}

/// `ln softmax(z)`, exact for the greatest logit too: `-ln(1 + Σ exp(z_v - max))` over the others.
fn logprobs(logits: &[f64]) -> Vec<f64> {
    let (mut first, mut max) = (0, f64::NEG_INFINITY);
    for (v, &z) in logits.iter().enumerate() {
        if z > max {
            (first, max) = (v, z);
        }
    }
    let others = logits.iter().enumerate().filter(|(v, _)| *v != first);
    let rest: f64 = others.map(|(_, z)| (z - max).exp()).sum();
    logits.iter().map(|z| z - max - rest.ln_1p()).collect()
}

fn entropy(logprobs: &[f64]) -> f64 {
    -logprobs.iter().map(|x| x.exp() * x).sum::<f64>()
}
