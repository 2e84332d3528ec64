//! Pictures of any values are drawn.

use std::path::Path;

use example_tools::plot::{
    GoodhartCurve, GoodhartPoint, PanelOf, ParityCurves, Roofline, RooflinePoint, Series,
    TrainingCurves, calibration_diagram, goodhart, line_chart, panels, parity, roofline,
    training_curves,
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
        let panel = PanelOf {
            y_label: "y",
            series: &[series, series],
            level: Some(("limit", 3.0)),
        };
        panels(&path, "Panels", "x", &[panel; 4]).unwrap();
        assert_eq!(size(&path), (1200, 800));
        let curves = ParityCurves {
            title: "Two programs",
            theirs: series,
            ours: series,
            differences: &[series; 2],
        };
        parity(&path, &curves).unwrap();
        assert_eq!(size(&path), (1200, 800));
        let ways: Vec<GoodhartPoint> = points
            .iter()
            .map(|&(kl, proxy)| GoodhartPoint {
                kl,
                proxy,
                gold: -proxy,
            })
            .collect();
        let curve = GoodhartCurve {
            name: "PPO",
            points: &ways,
        };
        goodhart(&path, "Goodhart", &[curve, curve], Some(10.0)).unwrap();
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

#[test]
fn rewards_against_divergence_of_three_algorithms() {
    let folder = tempfile::tempdir().unwrap();
    // Where PREFGRAD_PICTURES names a folder, the picture stays for a person to look at.
    let place = std::env::var_os("PREFGRAD_PICTURES").map(std::path::PathBuf::from);
    let path = place
        .unwrap_or_else(|| folder.path().to_owned())
        .join("goodhart.png");
    let way = |end: f64, slope: f64, bend: f64| -> Vec<GoodhartPoint> {
        (0..=30)
            .map(|i| {
                let root = end * f64::from(i) / 30.0;
                GoodhartPoint {
                    kl: root * root,
                    proxy: slope * root - 0.05 * bend * root * root,
                    gold: slope * root - bend * root * root,
                }
            })
            .collect()
    };
    let ways = [
        way(4.0, 1.2, 0.18),
        way(3.2, 1.1, 0.12),
        way(2.5, 0.9, 0.05),
    ];
    let curves: Vec<GoodhartCurve<'_>> = ["PPO", "GRPO", "DPO"]
        .into_iter()
        .zip(&ways)
        .map(|(name, points)| GoodhartCurve { name, points })
        .collect();
    goodhart(&path, "Gold and proxy reward", &curves, Some(10.0)).unwrap();
    assert_eq!(size(&path), (1200, 800));
}

#[test]
fn a_roofline_is_drawn_whatever_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roofline.png");
    let point = |family, flops_per_byte, gflop_s| RooflinePoint {
        family,
        flops_per_byte,
        gflop_s,
        share: 0.5,
    };
    let crowd = [point("nn.matmul", 85.0, 40.0); 40];
    let wild = [
        point("moves only", 0.0, 0.0),
        point("nothing", f64::NAN, f64::INFINITY),
        point("far away", 1e-9, 1e9),
    ];
    for points in [&[][..], &crowd, &wild] {
        for (gb_s, gflop_s) in [(10.0, 100.0), (3000.0, 60_000.0), (0.0, f64::NAN)] {
            let picture = Roofline {
                title: "A device",
                gb_s,
                kernel_gb_s: gb_s / 2.0,
                gflop_s,
                points,
            };
            roofline(&path, &picture).unwrap();
            assert_eq!(size(&path), (1200, 800));
        }
    }
}
