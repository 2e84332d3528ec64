//! Pictures of any values are drawn.

use std::path::Path;

use example_tools::plot::{
    Series, TrainingCurves, calibration_diagram, line_chart, training_curves,
};
use example_tools::statistics::calibration;

/// Width and height from the header of a PNG.
fn size(path: &Path) -> (u32, u32) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn pictures_are_drawn_whatever_the_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    let nothing: [(f64, f64); 0] = [];
    let flat = [(1.0, 0.0), (2.0, 0.0)];
    let wild = [
        (0.0, f64::NAN),
        (1.0, 1e30),
        (2.0, f64::INFINITY),
        (3.0, -4.0),
    ];
    for points in [&nothing[..], &flat, &wild, &[(5.0, 5.0)]] {
        let curves = TrainingCurves {
            title: "A run",
            train_loss: points,
            held_out_loss: points,
            train_accuracy: points,
            held_out_accuracy: points,
            levels: &[("half", 0.5), ("none", f64::NAN)],
        };
        training_curves(&path, &curves).unwrap();
        assert_eq!(size(&path), (1200, 800));
        let series = Series {
            name: "line",
            points,
        };
        line_chart(&path, "Lines", "x", "y", &[series, series]).unwrap();
        assert_eq!(size(&path), (1200, 800));
    }
    for gaps in [&[][..], &[0.0], &[1.0, -2.0, 500.0]] {
        calibration_diagram(&path, "Calibration", &calibration(gaps, 10)).unwrap();
        assert_eq!(size(&path), (1200, 800));
    }
}

#[test]
fn a_picture_without_a_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/picture.png");
    let error = line_chart(&path, "Lines", "x", "y", &[]).unwrap_err();
    assert!(format!("{error:#}").contains("missing"), "{error:#}");
}
