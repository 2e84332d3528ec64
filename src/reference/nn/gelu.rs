//! GELU, `x Φ(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415), in its two forms.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// Which formula stands for `Φ`, the distribution function of a standard normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gelu {
    /// `0.5 (1 + tanh(√(2/π) (x + 0.044715 x³)))`: `gelu_new` in Hugging Face configurations,
    /// what GPT-2 uses.
    #[default]
    Tanh,
    /// `0.5 (1 + erf(x / √2))`: exact, `gelu` in Hugging Face configurations.
    Erf,
}

/// Coefficient of the cubic term in the tanh form.
const CUBIC: f64 = 0.044715;

/// `y = x Φ(x)`, element by element.
pub fn gelu_forward(x: &[f64], form: Gelu) -> Vec<f64> {
    x.iter().map(|&x| x * phi(x, form)).collect()
}

/// `dx = dy (Φ(x) + x Φ'(x))`, element by element.
pub fn gelu_backward(x: &[f64], dy: &[f64], form: Gelu) -> Vec<f64> {
    assert_eq!(x.len(), dy.len(), "dy has the shape of x");
    x.iter()
        .zip(dy)
        .map(|(&x, dy)| dy * (phi(x, form) + x * phi_derivative(x, form)))
        .collect()
}

/// `Φ(x)` in the given form.
fn phi(x: f64, form: Gelu) -> f64 {
    match form {
        Gelu::Tanh => 0.5 * (1.0 + tanh_argument(x).tanh()),
        Gelu::Erf => 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)),
    }
}

/// `dΦ/dx` in the given form: `0.5 (1 - tanh²(u)) du/dx`, or the density `exp(-x²/2) / √(2π)`.
fn phi_derivative(x: f64, form: Gelu) -> f64 {
    match form {
        Gelu::Tanh => {
            let t = tanh_argument(x).tanh();
            0.5 * (1.0 - t * t) * (2.0 / PI).sqrt() * (1.0 + 3.0 * CUBIC * x * x)
        }
        Gelu::Erf => (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
    }
}

/// `u = √(2/π) (x + 0.044715 x³)`.
fn tanh_argument(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + CUBIC * x * x * x)
}

/// The error function, by its series of positive terms
/// `erf(x) = 2/√π exp(-x²) Σ_n 2ⁿ x^(2n+1) / (1·3·5···(2n+1))`
/// (Abramowitz and Stegun 1964, 7.1.6). Absolute error about 1e-16.
pub fn erf(x: f64) -> f64 {
    // From here on 1 - erf(x) is below half a unit in the last place of 1.
    if x.abs() >= 6.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    let mut n = 1.0;
    while term.abs() > f64::EPSILON * 1e-3 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::erf;

    /// Table values of Abramowitz and Stegun 1964, table 7.1, to their ten decimals.
    #[test]
    fn erf_matches_the_table() {
        let table = [
            (0.0, 0.0),
            (0.1, 0.1124629160),
            (0.5, 0.5204998778),
            (1.0, 0.8427007929),
            (1.5, 0.9661051465),
            (2.0, 0.9953222650),
        ];
        for (x, expected) in table {
            assert!((erf(x) - expected).abs() < 6e-11, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(40.0), 1.0);
        assert_eq!(erf(-40.0), -1.0);
        assert!((erf(5.999) - 1.0).abs() < 1e-15);
    }
}
