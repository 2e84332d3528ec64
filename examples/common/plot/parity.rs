//! A picture of two programs that make the same updates.

use super::*;

/// What [`parity`] shows. Points are `(update, value)`.
#[derive(Debug, Clone, Copy)]
pub struct ParityCurves<'a> {
    /// The picture's title.
    pub title: &'a str,
    /// The other program's loss, drawn whole, and its name.
    pub theirs: Series<'a>,
    /// This crate's, drawn broken on top of it.
    pub ours: Series<'a>,
    /// Losses less those of the other program.
    pub differences: &'a [Series<'a>],
}

/// Draws both losses over the same updates, and underneath how far they are apart.
///
/// # Errors
///
/// The file cannot be written.
pub fn parity(path: &Path, curves: &ParityCurves) -> Result<()> {
    draw(path, curves.title, |area| {
        let (upper, lower) = area.split_vertically(area.dim_in_pixel().1 * 3 / 5);
        let (theirs, ours) = (finite(curves.theirs.points), finite(curves.ours.points));
        let both = || theirs.iter().chain(&ours);
        let updates = padded(both().map(|p| p.0), 0.0);
        let loss = Axis {
            label: "loss",
            range: with_room(padded(both().map(|p| p.1), 0.08), 0.0, 0.25),
            format: plain,
        };
        let mut chart = axes(&upper, update_axis(&updates), loss)?;
        let style = COLOURS[4].stroke_width(7);
        chart
            .draw_series(LineSeries::new(theirs.iter().copied(), style))?
            .label(curves.theirs.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
        broken_path(&mut chart, curves.ours.name, &ours, COLOURS[0])?;
        legend(&mut chart, SeriesLabelPosition::UpperRight)?;
        draw_differences(&lower, &updates, curves.differences)
    })
}

fn draw_differences(area: &Area, updates: &Range<f64>, differences: &[Series]) -> Result<()> {
    let in_millionths = |line: &Series| -> Vec<_> {
        let points = finite(line.points);
        points.into_iter().map(|(x, y)| (x, 1e6 * y)).collect()
    };
    let lines: Vec<_> = differences.iter().map(in_millionths).collect();
    let difference = Axis {
        label: "difference, in 1e-6",
        range: with_room(padded(lines.iter().flatten().map(|p| p.1), 0.1), 0.5, 0.0),
        // A tick at zero is zero but for rounding.
        format: |value| plain((1e6 * value).round() / 1e6),
    };
    let mut chart = axes(area, update_axis(updates), difference)?;
    let colours = [COLOURS[0], COLOURS[2], COLOURS[3]];
    for ((series, line), colour) in differences.iter().zip(&lines).zip(colours) {
        named_line(&mut chart, series.name, line, colour)?;
    }
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// A range with shares of it added below and above, where a legend lies.
fn with_room(range: Range<f64>, below: f64, above: f64) -> Range<f64> {
    let height = range.end - range.start;
    range.start - below * height..range.end + above * height
}

fn update_axis(updates: &Range<f64>) -> Axis<'static> {
    Axis {
        label: "update",
        range: updates.clone(),
        format: plain,
    }
}
