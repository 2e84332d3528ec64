//! Gradients by finite differences, to hold a hand-written backward against.

use super::compare::relative_error;

/// Gradient of a scalar function at `x` by central differences,
/// `(f(x + h eᵢ) - f(x - h eᵢ)) / 2h` with `h = eps max(1, |xᵢ|)`: two evaluations an element.
///
/// The error is about `h²` times the third derivative plus `1e-16 |f| / h`; for functions of
/// ordinary size `eps = 1e-5` leaves 1e-10.
pub fn numerical_gradient(mut f: impl FnMut(&[f64]) -> f64, x: &[f64], eps: f64) -> Vec<f64> {
    let mut point = x.to_vec();
    let mut gradient = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let h = eps * x[i].abs().max(1.0);
        let (above, below) = (x[i] + h, x[i] - h);
        point[i] = above;
        let f_above = f(&point);
        point[i] = below;
        let f_below = f(&point);
        point[i] = x[i];
        // The step that was really taken, after rounding.
        gradient.push((f_above - f_below) / (above - below));
    }
    gradient
}

/// [`relative_error`] of an `analytic` gradient of `f` at `x` against [`numerical_gradient`].
pub fn check_gradient(f: impl FnMut(&[f64]) -> f64, x: &[f64], analytic: &[f64], eps: f64) -> f64 {
    relative_error(analytic, &numerical_gradient(f, x, eps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_right_gradient_from_a_wrong_one() {
        let f = |x: &[f64]| x[0].powi(3) * x[1] + x[1].sin();
        let x: [f64; 2] = [1.5, -0.7];
        let right = [3.0 * x[0] * x[0] * x[1], x[0].powi(3) + x[1].cos()];
        assert!(check_gradient(f, &x, &right, 1e-5) < 1e-9);
        let wrong = [right[0], right[1] * 1.001];
        assert!(check_gradient(f, &x, &wrong, 1e-5) > 1e-4);
    }
}
