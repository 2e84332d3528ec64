//! How far a result is from the reference.

use std::fmt;

/// The bound that an `f32` kernel has to keep where nothing else is known.
pub const F32_BOUND: f64 = 1e-5;

/// Bound for an `f32` kernel on a case where another `f32` implementation (PyTorch on the CPU) has
/// the relative error `other`: twice that, and never less than [`F32_BOUND`].
pub fn f32_bound(other: f64) -> f64 {
    F32_BOUND.max(2.0 * other)
}

/// The error of a result, and where it is largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// `max|actual - expected| / max|expected|`; absolute where all of `expected` is zero;
    /// infinite where a value is not finite or the lengths differ.
    pub error: f64,
    /// Index of the element that is furthest off.
    pub index: usize,
    /// The result there.
    pub actual: f64,
    /// The reference there.
    pub expected: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "error {:.3e}: {:e} instead of {:e} at index {}",
            self.error, self.actual, self.expected, self.index
        )
    }
}

/// [`Difference::error`] between a result (`f32` or `f64`) and the reference.
pub fn relative_error<T: Copy + Into<f64>>(actual: &[T], expected: &[f64]) -> f64 {
    difference(actual, expected).error
}

/// Compares a result (`f32` or `f64`) with the reference.
pub fn difference<T: Copy + Into<f64>>(actual: &[T], expected: &[f64]) -> Difference {
    let mut worst = Difference {
        error: 0.0,
        index: 0,
        actual: 0.0,
        expected: 0.0,
    };
    if actual.len() != expected.len() {
        worst.error = f64::INFINITY;
        return worst;
    }
    let mut magnitude = 0.0_f64;
    for (index, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let actual: f64 = actual.into();
        let error = if actual.is_finite() && expected.is_finite() {
            (actual - expected).abs()
        } else {
            f64::INFINITY
        };
        if error > worst.error || index == 0 {
            worst = Difference {
                error,
                index,
                actual,
                expected,
            };
        }
        magnitude = magnitude.max(expected.abs());
    }
    // An infinite error must not be divided by an infinite reference.
    if magnitude > 0.0 && worst.error.is_finite() {
        worst.error /= magnitude;
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_relative_to_the_largest_expected_value() {
        let d = difference(&[1.0_f32, 2.0, -3.0], &[1.0, 2.5, -4.0]);
        assert_eq!((d.error, d.index), (0.25, 2));
        assert_eq!((d.actual, d.expected), (-3.0, -4.0));
        assert_eq!(relative_error(&[0.5_f64, 0.0], &[0.0, 0.0]), 0.5);
        assert_eq!(relative_error::<f32>(&[], &[]), 0.0);
    }

    #[test]
    fn what_cannot_be_compared_is_infinitely_wrong() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(relative_error(&[1.0, bad, 1.0], &[1.0; 3]), f64::INFINITY);
        }
        assert_eq!(relative_error(&[1.0_f32], &[f64::INFINITY]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0_f32], &[f64::NAN]), f64::INFINITY);
        assert_eq!(relative_error(&[1.0_f32], &[1.0, 2.0]), f64::INFINITY);
    }

    #[test]
    fn the_bound_is_never_tighter_than_the_floor() {
        assert_eq!(f32_bound(1e-7), F32_BOUND);
        assert_eq!(f32_bound(1e-3), 2e-3);
    }
}
