//! Intervals, calibration and correlation, against published and hand-made figures.

use example_tools::statistics::{
    accuracy, calibration, pearson, sigmoid, spearman, wilson_interval,
};

use crate::close;

/// Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
#[test]
fn wilson_intervals_are_the_published_ones() {
    for (successes, total, low, high) in [
        (81.0, 263, 0.2553, 0.3662),
        (15.0, 148, 0.0624, 0.1605),
        (0.0, 20, 0.0, 0.1611),
        (1.0, 29, 0.0061, 0.1718),
    ] {
        let share = wilson_interval(successes, total);
        assert!((share.low - low).abs() < 5e-5, "{share:?}");
        assert!((share.high - high).abs() < 5e-5, "{share:?}");
    }
    let none = wilson_interval(0.0, 0);
    assert_eq!((none.low, none.high), (0.0, 1.0));
}

#[test]
fn a_tie_is_half_a_success() {
    let share = accuracy(&[1.0, -1.0, 0.0, 3.0]);
    close(share.value, 2.5 / 4.0);
    assert_eq!(
        wilson_interval(9.0, 16).to_string(),
        "56.2 % (33.2 to 76.9, n = 16)"
    );
}

#[test]
fn the_sigmoid_does_not_overflow() {
    assert_eq!(sigmoid(-1e4), 0.0);
    assert_eq!(sigmoid(1e4), 1.0);
    close(sigmoid(0.5) + sigmoid(-0.5), 1.0);
}

#[test]
fn calibration_sees_a_pair_from_the_favoured_side() {
    let sure = (0.9f64 / 0.1).ln();
    let doubtful = (0.6f64 / 0.4).ln();
    // At 90 %: 3 of 4 right. At 60 %: 1 of 2 right.
    let result = calibration(&[sure, sure, -sure, sure, doubtful, -doubtful], 5);
    assert_eq!(result.bins.len(), 2);
    close(result.bins[0].confidence, 0.6);
    close(result.bins[0].accuracy.value, 0.5);
    close(result.bins[1].confidence, 0.9);
    close(result.bins[1].accuracy.value, 0.75);
    close(
        result.expected_error,
        (2.0 / 6.0) * 0.1 + (4.0 / 6.0) * 0.15,
    );
}

#[test]
fn certainty_falls_into_the_last_bin() {
    let result = calibration(&[100.0, -100.0], 10);
    assert_eq!(result.bins.len(), 1);
    close(result.bins[0].confidence, 1.0);
    close(result.expected_error, 0.5);
}

#[test]
fn correlations() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0];
    // By hand: Σxy = 11, Σxx = 10, Σyy = 14.8.
    let y = [1.0, 2.0, 2.0, 3.0, 6.0];
    close(pearson(&x, &y).unwrap(), 11.0 / (10.0f64 * 14.8).sqrt());
    // The ranks of y are 1, 2.5, 2.5, 4, 5.
    close(spearman(&x, &y).unwrap(), 9.5 / (10.0f64 * 9.5).sqrt());
    let cubes = x.map(|v: f64| -v.powi(3));
    close(spearman(&x, &cubes).unwrap(), -1.0);
    assert!(pearson(&x, &cubes).unwrap() > -0.99);
    assert_eq!(pearson(&x, &[2.0; 5]), None);
    assert_eq!(pearson(&x, &[2.0, 1.0]), None);
    assert_eq!(spearman(&[], &[]), None);
}
