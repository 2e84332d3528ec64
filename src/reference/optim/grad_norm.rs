//! The global gradient norm and clipping by it (Pascanu, Mikolov and Bengio 2013, arXiv
//! 1211.5063, algorithm 1).

/// `sqrt(Σ g²)` over every element of every tensor.
pub fn global_norm(tensors: &[&[f64]]) -> f64 {
    let mut squares = 0.0;
    for tensor in tensors {
        for g in *tensor {
            squares += g * g;
        }
    }
    squares.sqrt()
}

/// Factor of all gradients that brings their norm down to `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`, as PyTorch's `clip_grad_norm_` has it.
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_never_enlarges_a_gradient() {
        assert_eq!(global_norm(&[&[3.0], &[0.0, -4.0]]), 5.0);
        assert_eq!(clip_coefficient(0.0, 1.0), 1.0);
        assert_eq!(clip_coefficient(0.5, 1.0), 1.0);
        assert_eq!(clip_coefficient(4.0, 2.0), 2.0 / 4.000001);
        assert_eq!(clip_coefficient(4.0, f64::INFINITY), 1.0);
    }
}
