//! AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2), in the order of operations
//! of PyTorch's `torch.optim.AdamW`.

/// Hyper-parameters of one step of [`adamw`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, counted from 1.
    pub step: i32,
    /// Factor of the gradient, usually [`clip_coefficient`](super::grad_norm::clip_coefficient).
    pub gradient_scale: f64,
}

/// One step over one tensor, in place; all four slices have the same length.
///
/// With `g` the scaled gradient and `t` the step: `param *= 1 - lr weight_decay`;
/// `m = β₁ m + (1 - β₁) g`; `v = β₂ v + (1 - β₂) g²`;
/// `param -= lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)`.
pub fn adamw(options: &AdamW, param: &mut [f64], gradient: &[f64], m: &mut [f64], v: &mut [f64]) {
    let AdamW { beta1, beta2, .. } = *options;
    let correction1 = 1.0 - beta1.powi(options.step);
    let correction2 = 1.0 - beta2.powi(options.step);
    for i in 0..param.len() {
        let g = gradient[i] * options.gradient_scale;
        param[i] *= 1.0 - options.lr * options.weight_decay;
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        let denominator = v[i].sqrt() / correction2.sqrt() + options.eps;
        param[i] -= options.lr / correction1 * m[i] / denominator;
    }
}
