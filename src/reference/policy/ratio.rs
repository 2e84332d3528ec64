//! What the losses of several algorithms share: clipped ratios and the figures about them.

use crate::kernels::policy::PolicyMetrics;

/// Exponents are held at this from above.
pub const LARGEST_EXPONENT: f64 = 30.0;

/// `exp(x)` with the exponent held.
pub fn bounded_exp(x: f64) -> f64 {
    x.min(LARGEST_EXPONENT).exp()
}

/// `exp(x) - 1 - x` with the exponent held; near 0 by its series.
pub fn exp_excess(x: f64) -> f64 {
    let x = x.min(LARGEST_EXPONENT);
    if x.abs() > 0.1 {
        return x.exp_m1() - x;
    }
    let mut term = 0.5 * x * x;
    let mut sum = 0.0;
    for n in 3..14 {
        sum += term;
        term *= x / f64::from(n);
    }
    sum
}

/// The interval in which a ratio may move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// `1 - ε`.
    pub low: f64,
    /// `1 + ε`.
    pub high: f64,
    /// A bound on the ratio where the advantage is negative.
    pub delta: Option<f64>,
}

/// A clipped term and its derivative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surrogate {
    /// `-min(min(r, δ) A, clamp(r, low, high) A)`.
    pub loss: f64,
    /// Derivative with respect to the logarithm of the ratio; of the first term where both are
    /// equal.
    pub slope: f64,
    /// Clipped at the lower end, with a negative advantage.
    pub clipped_low: bool,
    /// Clipped at the upper end, with a positive advantage.
    pub clipped_high: bool,
}

/// The clipped term of a ratio `r = exp(log_ratio)` with advantage `A` (Schulman et al. 2017,
/// arXiv 1707.06347, equation 7).
pub fn surrogate(log_ratio: f64, advantage: f64, interval: &Interval) -> Surrogate {
    let Interval { low, high, delta } = *interval;
    let ratio = bounded_exp(log_ratio);
    let plain = delta.map_or(ratio, |delta| ratio.min(delta)) * advantage;
    let clipped = ratio.clamp(low, high) * advantage;
    let (loss, slope) = if clipped < plain {
        (-clipped, 0.0)
    } else if delta.is_some_and(|delta| ratio > delta) {
        (-plain, 0.0)
    } else {
        (-plain, -advantage * ratio)
    };
    Surrogate {
        loss,
        slope,
        clipped_low: advantage < 0.0 && ratio < low,
        clipped_high: advantage > 0.0 && ratio > high,
    }
}

/// One real token's part of the figures about ratios: `log_ratio` is its own, `clipped` and
/// `ratio` may be its sequence's.
pub fn add_ratio(
    metrics: &mut PolicyMetrics,
    log_ratio: f64,
    ratio: f64,
    clipped: &Surrogate,
    entropy: f64,
) {
    metrics.entropy += entropy;
    metrics.approx_kl_k1 -= log_ratio;
    metrics.approx_kl_k2 += 0.5 * log_ratio * log_ratio;
    metrics.approx_kl_k3 += exp_excess(log_ratio);
    metrics.ratio_min = metrics.ratio_min.min(ratio);
    metrics.ratio_max = metrics.ratio_max.max(ratio);
    metrics.clip_low += f64::from(u8::from(clipped.clipped_low));
    metrics.clip_high += f64::from(u8::from(clipped.clipped_high));
    metrics.tokens += 1.0;
    metrics.held += held(log_ratio);
}

/// 1 for an exponent that is held.
pub fn held(x: f64) -> f64 {
    f64::from(u8::from(x > LARGEST_EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_and_the_difference_meet() {
        for x in [0.1_f64, -0.1, 0.0999, -0.0999] {
            let plain = x.exp_m1() - x;
            assert!((exp_excess(x) / plain - 1.0).abs() < 1e-12, "{x}");
        }
        assert_eq!(exp_excess(0.0), 0.0);
        assert!((exp_excess(1e-6) / 5.000_001_666_667e-13 - 1.0).abs() < 1e-12);
        assert_eq!(exp_excess(200.0), exp_excess(30.0));
    }

    #[test]
    fn only_a_ratio_that_pays_is_clipped() {
        let interval = Interval {
            low: 0.8,
            high: 1.3,
            delta: Some(1.5),
        };
        let at = |ratio: f64, advantage| {
            let s = surrogate(ratio.ln(), advantage, &interval);
            (s.loss, s.slope, s.clipped_low, s.clipped_high)
        };
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert_eq!(at(1.0, 2.0), (-2.0, -2.0, false, false));
        assert_eq!(at(1.0, -2.0), (2.0, 2.0, false, false));
        assert_eq!(at(1.4, 2.0), (-2.6, 0.0, false, true));
        assert_eq!(at(0.5, -2.0), (1.6, 0.0, true, false));
        assert_eq!(at(9.0, -2.0), (3.0, 0.0, false, false));
        let (loss, slope, ..) = at(1.4, -2.0);
        assert!(near(loss, 2.8) && near(slope, 2.8));
        let (loss, slope, ..) = at(0.5, 2.0);
        assert!(near(loss, -1.0) && near(slope, -1.0));
    }
}
