//! The gated linear unit with SiLU (Shazeer 2020, arXiv 2002.05202, equation 6):
//! `y = silu(gate) up`, `silu(g) = g σ(g)`.

use crate::reference::preference::pairwise_loss::sigmoid;

/// `y = silu(gate) up`, `[T, I]`; a row of `gate_up` `[T, 2I]` holds the gates, then `up`.
pub fn swiglu_forward(gate_up: &[f64], inner: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks_exact(2 * inner) {
        let (gate, up) = row.split_at(inner);
        y.extend(gate.iter().zip(up).map(|(&g, up)| g * sigmoid(g) * up));
    }
    y
}

/// Gradient of `gate_up` `[T, 2I]` from `dy` `[T, I]`: `dgate = dy up silu'(gate)` with
/// `silu'(g) = σ(g) (1 + g (1 - σ(g)))`, `dup = dy silu(gate)`.
pub fn swiglu_backward(gate_up: &[f64], dy: &[f64], inner: usize) -> Vec<f64> {
    assert_eq!(gate_up.len(), 2 * dy.len(), "a gate and an up for each y");
    let mut dgate_up = Vec::with_capacity(gate_up.len());
    for (row, dy) in gate_up.chunks_exact(2 * inner).zip(dy.chunks_exact(inner)) {
        let (gate, up) = row.split_at(inner);
        let slope = |g: f64| sigmoid(g) * (1.0 + g * sigmoid(-g));
        let dgate = (0..inner).map(|i| dy[i] * up[i] * slope(gate[i]));
        let dup = (0..inner).map(|i| dy[i] * gate[i] * sigmoid(gate[i]));
        dgate_up.extend(dgate.chain(dup));
    }
    dgate_up
}
