//! The scalar reward head on each answer's pooled row.

/// `reward[a] = hidden[pooled_rows[a]] · w + b`, `[A]`.
///
/// `hidden` is `[T, C]`, `w` `[C]`; `b` is 0 for Hugging Face's `score` heads, which have none.
pub fn pooled_head_forward(hidden: &[f64], pooled_rows: &[u32], w: &[f64], b: f64) -> Vec<f64> {
    let width = w.len();
    let mut rewards = Vec::with_capacity(pooled_rows.len());
    for &row in pooled_rows {
        let state = &hidden[row as usize * width..][..width];
        let product: f64 = state.iter().zip(w).map(|(h, w)| h * w).sum();
        rewards.push(product + b);
    }
    rewards
}

/// Gradients of [`pooled_head_forward`]'s inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct PooledHeadGradients {
    /// Of `hidden`, `[T, C]`: zero in rows where no answer pools, a sum where several do.
    pub dhidden: Vec<f64>,
    /// Of `w`, `[C]`.
    pub dw: Vec<f64>,
    /// Of `b`.
    pub db: f64,
}

/// Backward of [`pooled_head_forward`] from `drewards` `[A]`:
/// `dhidden[pooled_rows[a]] += drewards[a] w`, `dw = Σ_a drewards[a] hidden[pooled_rows[a]]`,
/// `db = Σ_a drewards[a]`.
pub fn pooled_head_backward(
    hidden: &[f64],
    pooled_rows: &[u32],
    w: &[f64],
    drewards: &[f64],
) -> PooledHeadGradients {
    let width = w.len();
    assert_eq!(pooled_rows.len(), drewards.len(), "one gradient an answer");
    let mut out = PooledHeadGradients {
        dhidden: vec![0.0; hidden.len()],
        dw: vec![0.0; width],
        db: 0.0,
    };
    for (&row, &dreward) in pooled_rows.iter().zip(drewards) {
        let row = row as usize * width;
        for c in 0..width {
            out.dhidden[row + c] += dreward * w[c];
            out.dw[c] += dreward * hidden[row + c];
        }
        out.db += dreward;
    }
    out
}
