//! Values brought to zero mean and unit variance, some of them left out.

/// `(x - mean) / sqrt(variance + eps)`, plus the mean unless `shift_mean`; the unbiased variance is
/// that of the values `counted`, 0 of fewer than two; the others become 0.
pub fn whiten(x: &[f64], counted: &[bool], shift_mean: bool, eps: f64) -> Vec<f64> {
    let chosen = || x.iter().zip(counted).filter(|(_, c)| **c).map(|(x, _)| *x);
    let n = chosen().count();
    let mean = chosen().sum::<f64>() / n.max(1) as f64;
    let squares: f64 = chosen().map(|x| (x - mean) * (x - mean)).sum();
    let factor = 1.0 / (squares / (n.max(2) - 1) as f64 + eps).sqrt();
    let kept = if shift_mean { 0.0 } else { mean };
    x.iter()
        .zip(counted)
        .map(|(x, c)| if *c { (x - mean) * factor + kept } else { 0.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_is_unbiased_and_of_what_counts() {
        let y = whiten(&[1.0, 99.0, 3.0], &[true, false, true], true, 0.0);
        let one = 0.5_f64.sqrt();
        assert!((y[0] + one).abs() < 1e-12 && (y[2] - one).abs() < 1e-12);
        assert_eq!(y[1], 0.0);
        assert_eq!(whiten(&[5.0], &[true], true, 1e-8), [0.0]);
        assert_eq!(whiten(&[5.0], &[true], false, 1e-8), [5.0]);
        assert_eq!(whiten(&[5.0], &[false], false, 1e-8), [0.0]);
    }
}
