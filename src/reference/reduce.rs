//! Reductions of one slice to one number.

/// `Σ x`; 0 for an empty slice.
pub fn sum(x: &[f64]) -> f64 {
    x.iter().sum()
}

/// `Σ x / n`; not a number for an empty slice.
pub fn mean(x: &[f64]) -> f64 {
    sum(x) / x.len() as f64
}

/// Population variance `Σ (x - mean)² / n`, in two passes; not a number for an empty slice.
pub fn variance(x: &[f64]) -> f64 {
    let mean = mean(x);
    let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    squares / x.len() as f64
}

/// The smallest element that is a number; infinity for an empty slice.
pub fn min(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest element that is a number; minus infinity for an empty slice.
pub fn max(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// How many elements are infinite or not a number.
pub fn count_non_finite(x: &[f64]) -> usize {
    x.iter().filter(|x| !x.is_finite()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_of_a_small_slice() {
        let x = [3.0, -1.0, 4.0, 2.0];
        assert_eq!(sum(&x), 8.0);
        assert_eq!(mean(&x), 2.0);
        assert_eq!(variance(&x), 3.5);
        assert_eq!((min(&x), max(&x)), (-1.0, 4.0));
        assert_eq!(count_non_finite(&x), 0);
    }

    #[test]
    fn edge_cases() {
        assert_eq!(sum(&[]), 0.0);
        assert!(mean(&[]).is_nan() && variance(&[]).is_nan());
        assert_eq!((min(&[]), max(&[])), (f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!(variance(&[1e9 + 1.0, 1e9 - 1.0]), 1.0);
        let x = [f64::NAN, 1.0, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(count_non_finite(&x), 3);
    }
}
