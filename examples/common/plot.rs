//! Pictures of a run, 1200 by 800 pixels, PNG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

mod parity;
mod policy;
mod roofline;

pub use parity::{ParityCurves, parity};
pub use policy::{GoodhartCurve, GoodhartPoint, PanelOf, goodhart, panels};
pub use roofline::{Roofline, RooflinePoint, roofline};

use crate::canvas::{Canvas, FONT};
use crate::statistics::Calibration;

const SIZE: (u32, u32) = (1200, 800);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

type Area<'a> = DrawingArea<Canvas<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'b, Canvas<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A line with a name.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Points by ascending x; those that are not finite are left out.
    pub points: &'a [(f64, f64)],
}

/// Draws named lines over one pair of axes.
///
/// # Errors
///
/// The file cannot be written.
pub fn line_chart(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
) -> Result<()> {
    draw(path, title, |area| {
        let lines: Vec<_> = series.iter().map(|line| finite(line.points)).collect();
        let points = lines.iter().flatten();
        let x = Axis {
            label: x_label,
            range: padded(points.clone().map(|p| p.0), 0.0),
            format: plain,
        };
        let y = Axis {
            label: y_label,
            range: padded(points.map(|p| p.1), 0.05),
            format: plain,
        };
        let mut chart = axes(area, x, y)?;
        for (index, (line, points)) in series.iter().zip(&lines).enumerate() {
            named_line(
                &mut chart,
                line.name,
                points,
                COLOURS[index % COLOURS.len()],
            )?;
        }
        legend(&mut chart, SeriesLabelPosition::UpperRight)
    })
}

/// What [`training_curves`] shows. Points are `(step, value)`; an empty slice is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrainingCurves<'a> {
    /// The picture's title.
    pub title: &'a str,
    /// Loss of each training step.
    pub train_loss: &'a [(f64, f64)],
    /// Loss on the held-out records.
    pub held_out_loss: &'a [(f64, f64)],
    /// Accuracy of each training step, 0 to 1.
    pub train_accuracy: &'a [(f64, f64)],
    /// Accuracy on the held-out records, 0 to 1.
    pub held_out_accuracy: &'a [(f64, f64)],
    /// Accuracies to compare with, as of baselines: a name and a value from 0 to 1.
    pub levels: &'a [(&'a str, f64)],
}

/// Draws the loss above the accuracy, over the same steps: training values as they were, in a
/// light colour, and their running mean; held-out values; levels as broken lines.
///
/// # Errors
///
/// The file cannot be written.
pub fn training_curves(path: &Path, curves: &TrainingCurves) -> Result<()> {
    draw(path, curves.title, |area| {
        let (upper, lower) = area.split_vertically(area.dim_in_pixel().1 / 2);
        let all = [
            curves.train_loss,
            curves.held_out_loss,
            curves.train_accuracy,
            curves.held_out_accuracy,
        ];
        let steps = padded(all.into_iter().flatten().map(|p| p.0), 0.0);
        let loss = Panel {
            y_label: "loss",
            format: plain,
            train: curves.train_loss,
            held_out: curves.held_out_loss,
            levels: &[],
            corner: SeriesLabelPosition::UpperRight,
        };
        let accuracy = Panel {
            y_label: "accuracy",
            format: percent,
            train: curves.train_accuracy,
            held_out: curves.held_out_accuracy,
            levels: curves.levels,
            corner: SeriesLabelPosition::LowerRight,
        };
        loss.draw(&upper, steps.clone())?;
        accuracy.draw(&lower, steps)
    })
}

/// Draws how often a model was right against how sure it was, with 95 % intervals and the number
/// of pairs under each bin.
///
/// # Errors
///
/// The file cannot be written.
pub fn calibration_diagram(path: &Path, title: &str, calibration: &Calibration) -> Result<()> {
    draw(path, title, |area| {
        let lows = calibration.bins.iter().map(|bin| bin.accuracy.low);
        let bottom = lows.fold(0.4, f64::min);
        let x = Axis {
            label: "confidence that the favoured answer is the preferred one",
            range: 0.5..1.0,
            format: percent,
        };
        let y = Axis {
            label: "how often it was",
            range: bottom - 0.03..1.02,
            format: percent,
        };
        let mut chart = axes(area, x, y)?;
        broken_line(
            &mut chart,
            "perfect calibration",
            (0.5, 0.5),
            (1.0, 1.0),
            INK,
        )?;

        let colour = COLOURS[0];
        for bin in &calibration.bins {
            let (x, share) = (bin.confidence, bin.accuracy);
            let interval = [(x, share.low), (x, share.high)];
            chart.draw_series([PathElement::new(interval, colour.mix(0.45).stroke_width(6))])?;
        }
        let points: Vec<_> = calibration
            .bins
            .iter()
            .map(|bin| (bin.confidence, bin.accuracy.value))
            .collect();
        let name = format!(
            "observed, with 95 % interval and number of pairs; expected calibration error {:.1} %",
            100.0 * calibration.expected_error
        );
        named_line(&mut chart, &name, &finite(&points), colour)?;
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 6, colour.filled())))?;
        chart.draw_series(calibration.bins.iter().map(|bin| {
            let below = EmptyElement::at((bin.confidence, bin.accuracy.low));
            let centred = text(17).pos(Pos::new(HPos::Center, VPos::Top));
            let count = Text::new(bin.accuracy.total.to_string(), (0, 4), centred);
            below + count
        }))?;
        legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}

/// One of the two charts of [`training_curves`].
struct Panel<'a> {
    y_label: &'a str,
    format: fn(f64) -> String,
    train: &'a [(f64, f64)],
    held_out: &'a [(f64, f64)],
    levels: &'a [(&'a str, f64)],
    corner: SeriesLabelPosition,
}

impl Panel<'_> {
    fn draw(&self, area: &Area, steps: Range<f64>) -> Result<()> {
        let (raw, held_out) = (finite(self.train), finite(self.held_out));
        let mean = running_mean(&raw);
        let levels: Vec<_> = self
            .levels
            .iter()
            .filter(|level| level.1.is_finite())
            .collect();
        let shown = mean.iter().chain(&held_out).map(|p| p.1);
        let shown = shown.chain(levels.iter().map(|level| level.1));
        // A single step's spike must not flatten everything else.
        let y_range = padded(shown.chain(without_extremes(&raw)), 0.08);
        let x = Axis {
            label: "step",
            range: steps.clone(),
            format: plain,
        };
        let y = Axis {
            label: self.y_label,
            range: y_range.clone(),
            format: self.format,
        };
        let mut chart = axes(area, x, y)?;
        let inside = raw
            .iter()
            .map(|&(x, y)| (x, y.clamp(y_range.start, y_range.end)));
        chart.draw_series(LineSeries::new(inside, COLOURS[0].mix(0.25)))?;
        if !mean.is_empty() {
            named_line(&mut chart, "training, running mean", &mean, COLOURS[0])?;
        }
        if !held_out.is_empty() {
            named_line(&mut chart, "held out", &held_out, COLOURS[1])?;
            let dots = held_out
                .iter()
                .map(|&p| Circle::new(p, 4, COLOURS[1].filled()));
            chart.draw_series(dots)?;
        }
        for (index, &&(name, level)) in levels.iter().enumerate() {
            let name = format!("{name} ({:.1} %)", 100.0 * level);
            let colour = COLOURS[2 + index % (COLOURS.len() - 2)];
            broken_line(
                &mut chart,
                &name,
                (steps.start, level),
                (steps.end, level),
                colour,
            )?;
        }
        legend(&mut chart, self.corner.clone())
    }
}

fn draw(path: &Path, title: &str, content: impl FnOnce(&Area) -> Result<()>) -> Result<()> {
    let canvas = Canvas::new(path, SIZE)?;
    let root = canvas.into_drawing_area();
    let failed = || format!("cannot draw {}", path.display());
    root.fill(&WHITE).with_context(failed)?;
    let area = root
        .margin(10, 10, 10, 20)
        .titled(title, text(30))
        .with_context(failed)?;
    content(&area).with_context(failed)?;
    root.present().with_context(failed)
}

fn text(size: i32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// One of a chart's axes.
struct Axis<'a> {
    label: &'a str,
    range: Range<f64>,
    format: fn(f64) -> String,
}

fn axes<'a, 'b>(area: &'b Area<'a>, x: Axis, y: Axis) -> Result<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(55)
        .y_label_area_size(85)
        .build_cartesian_2d(x.range, y.range)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(11)
        .y_labels(8)
        .x_label_formatter(&|value| (x.format)(*value))
        .y_label_formatter(&|value| (y.format)(*value))
        .label_style(text(18))
        .axis_desc_style(text(21))
        .x_desc(x.label)
        .y_desc(y.label)
        .draw()?;
    Ok(chart)
}

fn named_line<'a: 'b, 'b>(
    chart: &mut Chart<'a, 'b>,
    name: &str,
    points: &[(f64, f64)],
    colour: RGBColor,
) -> Result<()> {
    let style = colour.stroke_width(3);
    chart
        .draw_series(LineSeries::new(points.iter().copied(), style))?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
    Ok(())
}

fn broken_line<'a: 'b, 'b>(
    chart: &mut Chart<'a, 'b>,
    name: &str,
    from: (f64, f64),
    to: (f64, f64),
    colour: RGBColor,
) -> Result<()> {
    broken_path(chart, name, &[from, to], colour)
}

fn broken_path<'a: 'b, 'b>(
    chart: &mut Chart<'a, 'b>,
    name: &str,
    points: &[(f64, f64)],
    colour: RGBColor,
) -> Result<()> {
    let style = colour.stroke_width(2);
    chart
        .draw_series(DashedLineSeries::new(points.iter().copied(), 8, 6, style))?
        .label(name)
        .legend(move |(x, y)| {
            EmptyElement::at((x, y))
                + PathElement::new([(0, 0), (11, 0)], style)
                + PathElement::new([(17, 0), (28, 0)], style)
        });
    Ok(())
}

fn legend<'a: 'b, 'b>(chart: &mut Chart<'a, 'b>, corner: SeriesLabelPosition) -> Result<()> {
    chart
        .configure_series_labels()
        .position(corner)
        .margin(12)
        .legend_area_size(38)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(text(18))
        .draw()?;
    Ok(())
}

fn finite(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let is_finite = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
    points.iter().copied().filter(is_finite).collect()
}

/// The range of the finite values and a share of it on both sides; never empty.
fn padded(values: impl Iterator<Item = f64>, share: f64) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.0..1.0;
    }
    if low == high {
        let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
        return low - room..high + room;
    }
    let room = share * (high - low);
    low - room..high + room
}

/// A mean over the last twentieth of the points, at least 5 and at most 100.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let width = (points.len() / 20).clamp(5, 100);
    (0..points.len())
        .map(|end| {
            let window = &points[(end + 1).saturating_sub(width)..=end];
            let sum: f64 = window.iter().map(|p| p.1).sum();
            (points[end].0, sum / window.len() as f64)
        })
        .collect()
}

/// The values without their lowest and highest hundredth.
fn without_extremes(points: &[(f64, f64)]) -> Vec<f64> {
    let mut values: Vec<f64> = points.iter().map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 100;
    values[cut..values.len() - cut].to_vec()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// As many digits as tell neighbouring ticks apart, and no trailing zeros.
fn plain(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e7).contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.5}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}
