//! A picture of kernels under the limit of their device.

use plotters::coord::combinators::LogCoord;

use super::*;

/// A timed case of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RooflinePoint<'a> {
    /// The kernel; points of one family have a number and a colour in common and stand side by
    /// side in the list.
    pub family: &'a str,
    /// Operations for each byte; one without operations is listed, not drawn.
    pub flops_per_byte: f64,
    /// Operations a second, in 1e9.
    pub gflop_s: f64,
    /// The share of the limit, 1 for all of it.
    pub share: f64,
}

/// What [`roofline`] shows.
#[derive(Debug, Clone, Copy)]
pub struct Roofline<'a> {
    /// The picture's title.
    pub title: &'a str,
    /// The device's bandwidth: the slope.
    pub gb_s: f64,
    /// The bandwidth of a kernel that copies; where it is lower, a thin line shows it.
    pub kernel_gb_s: f64,
    /// The device's arithmetic rate: the level.
    pub gflop_s: f64,
    /// Points by family.
    pub points: &'a [RooflinePoint<'a>],
}

type LogChart<'a, 'b> = ChartContext<'b, Canvas<'a>, Cartesian2d<LogCoord<f64>, LogCoord<f64>>>;
/// The middle of something, in pixels.
type Place = (i32, i32);

const LIST_WIDTH: u32 = 350;
/// Of a number's disc.
const RADIUS: i32 = 11;
/// Of a case's dot.
const DOT: i32 = 4;

/// Draws operations a second against operations for each byte, both logarithmic, under the roof
/// min(intensity · bandwidth, arithmetic rate), as Williams, Waterman and Patterson 2009 do
/// (Communications of the ACM 52/4). A dot a case; a family's number points at its lowest share.
///
/// # Errors
///
/// The file cannot be written.
pub fn roofline(path: &Path, roofline: &Roofline) -> Result<()> {
    let families: Vec<&[RooflinePoint]> = roofline
        .points
        .chunk_by(|a, b| a.family == b.family)
        .collect();
    draw(path, roofline.title, |area| {
        let width = area.dim_in_pixel().0.saturating_sub(LIST_WIDTH);
        let (left, right) = area.split_horizontally(width);
        let mut chart = log_axes(&left, roofline)?;
        draw_roof(&mut chart, roofline)?;
        draw_points(&chart, &left, &families)?;
        list(&right, &families)
    })
}

fn drawn(point: &RooflinePoint) -> bool {
    let positive = |value: f64| value.is_finite() && value > 0.0;
    positive(point.flops_per_byte) && positive(point.gflop_s)
}

fn colour(family: usize) -> RGBColor {
    COLOURS[family % COLOURS.len()]
}

/// From a power of ten below the smallest value to one above the largest.
fn decades(values: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite() && *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.1..10.0;
    }
    10f64.powf((low / room).log10().floor())..10f64.powf((high * room).log10().ceil())
}

/// The roof of a bandwidth inside the chart, where there is one.
fn corners(chart: &LogChart, gb_s: f64, gflop_s: f64) -> Option<[(f64, f64); 3]> {
    let (x, y) = (chart.x_range(), chart.y_range());
    let ridge = gflop_s / gb_s;
    let start = x.start.max(y.start / gb_s);
    let ascending = start < ridge && ridge < x.end;
    ascending.then_some([(start, start * gb_s), (ridge, gflop_s), (x.end, gflop_s)])
}

fn log_axes<'a, 'b>(area: &'b Area<'a>, roofline: &Roofline) -> Result<LogChart<'a, 'b>> {
    let shown = || roofline.points.iter().filter(|point| drawn(point));
    // Where memory and arithmetic take equally long.
    let ridges = [roofline.gb_s, roofline.kernel_gb_s].map(|gb_s| roofline.gflop_s / gb_s);
    let x = decades(shown().map(|p| p.flops_per_byte).chain(ridges), 1.1);
    let y = decades(shown().map(|p| p.gflop_s).chain([roofline.gflop_s]), 1.3);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(55)
        .y_label_area_size(85)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(GRID.mix(0.4))
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&|value| plain(*value))
        .y_label_formatter(&|value| plain(*value))
        .label_style(text(18))
        .axis_desc_style(text(21))
        .x_desc("intensity, FLOP/byte")
        .y_desc("GFLOP/s")
        .draw()?;
    Ok(chart)
}

fn draw_roof<'a: 'b, 'b>(chart: &mut LogChart<'a, 'b>, roofline: &Roofline) -> Result<()> {
    let gflop_s = roofline.gflop_s;
    if let Some(corners) = corners(chart, roofline.gb_s, gflop_s) {
        let name = format!(
            "limit: {:.1} GB/s copied, {gflop_s:.1} GFLOP/s",
            roofline.gb_s
        );
        let style = INK.stroke_width(2);
        chart
            .draw_series(DashedLineSeries::new(corners, 8, 6, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
    }
    let kernel_gb_s = roofline.kernel_gb_s;
    let slower = kernel_gb_s < 0.95 * roofline.gb_s;
    if let Some(corners) = corners(chart, kernel_gb_s, gflop_s).filter(|_| slower) {
        let style = INK.mix(0.5).stroke_width(1);
        chart
            .draw_series(LineSeries::new(corners, style))?
            .label(format!("copied by a kernel: {kernel_gb_s:.1} GB/s"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 28, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(12)
        .legend_area_size(38)
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .label_font(text(18))
        .draw()?;
    Ok(())
}

fn draw_points(chart: &LogChart, area: &Area, families: &[&[RooflinePoint]]) -> Result<()> {
    let corner = area.get_base_pixel();
    let place = |point: &RooflinePoint| {
        let (x, y) = chart.backend_coord(&(point.flops_per_byte, point.gflop_s));
        (x - corner.0, y - corner.1)
    };
    let mut taken: Vec<(Place, i32)> = Vec::new();
    for (family, points) in families.iter().enumerate() {
        for point in points.iter().filter(|point| drawn(point)) {
            let at = place(point);
            area.draw(&Circle::new(at, DOT, colour(family).filled()))?;
            taken.push((at, DOT));
        }
    }
    let mut labels = Vec::new();
    for (family, points) in families.iter().enumerate() {
        let shown = points.iter().filter(|point| drawn(point));
        let Some(lowest) = shown.min_by(|a, b| a.share.total_cmp(&b.share)) else {
            continue;
        };
        let at = place(lowest);
        let label = free_place(at, &taken, area.dim_in_pixel());
        taken.push((label, RADIUS));
        area.draw(&PathElement::new([at, label], colour(family)))?;
        labels.push((family, label));
    }
    for (family, label) in labels {
        number(area, family, label, RADIUS)?;
    }
    Ok(())
}

/// The place nearest to a dot where its number hides nothing.
fn free_place(dot: Place, taken: &[(Place, i32)], size: (u32, u32)) -> Place {
    const DIRECTIONS: i32 = 24;
    let around = (RADIUS + DOT + 2..200).step_by(3).flat_map(|distance| {
        (0..DIRECTIONS).map(move |turn| {
            let angle = std::f64::consts::TAU * f64::from(turn) / f64::from(DIRECTIONS);
            let (sin, cos) = angle.sin_cos();
            let along = |part: f64| (f64::from(distance) * part).round() as i32;
            (dot.0 + along(cos), dot.1 - along(sin))
        })
    });
    let inside = |value: i32, end: u32| value > RADIUS && value + RADIUS < end as i32;
    let free = |&(x, y): &Place| {
        let apart = |&((a, b), radius): &(Place, i32)| {
            let least = RADIUS + radius + 2;
            (x - a) * (x - a) + (y - b) * (y - b) >= least * least
        };
        inside(x, size.0) && inside(y, size.1) && taken.iter().all(apart)
    };
    around.into_iter().find(free).unwrap_or(dot)
}

fn number(area: &Area, family: usize, at: Place, radius: i32) -> Result<()> {
    area.draw(&Circle::new(at, radius, WHITE.filled()))?;
    area.draw(&Circle::new(at, radius, colour(family).stroke_width(2)))?;
    let centred = text(14).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new((family + 1).to_string(), at, centred))?;
    Ok(())
}

/// Number, name and share of every family.
fn list(area: &Area, families: &[&[RooflinePoint]]) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    let (top, right) = (14, width as i32 - 12);
    let left_middle = text(17).pos(Pos::new(HPos::Left, VPos::Center));
    let right_middle = text(17).pos(Pos::new(HPos::Right, VPos::Center));
    area.draw(&Text::new(
        "share of the limit",
        (right, top),
        right_middle.clone(),
    ))?;
    let lines = families.len().max(1) as i32;
    let line_height = ((height as i32 - 2 * top) / (lines + 1)).min(28);
    for (family, points) in families.iter().enumerate() {
        let y = top + (family as i32 + 1) * line_height;
        number(area, family, (20, y), RADIUS - 1)?;
        let Some(name) = points.first().map(|point| point.family) else {
            continue;
        };
        area.draw(&Text::new(name, (40, y), left_middle.clone()))?;
        area.draw(&Text::new(shares(points), (right, y), right_middle.clone()))?;
    }
    Ok(())
}

/// As in `31 to 45 %`.
fn shares(points: &[RooflinePoint]) -> String {
    let shares = || points.iter().map(|point| 100.0 * point.share);
    let low = shares().fold(f64::INFINITY, f64::min);
    let high = shares().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = (format!("{low:.0}"), format!("{high:.0}"));
    if low == high {
        format!("{low} %")
    } else {
        format!("{low} to {high} %")
    }
}
