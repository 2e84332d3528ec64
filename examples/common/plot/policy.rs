//! Pictures of a policy's training.

use super::*;

/// One of the charts of [`panels`].
#[derive(Debug, Clone, Copy)]
pub struct PanelOf<'a> {
    /// What the vertical axis shows.
    pub y_label: &'a str,
    /// Lines, each light as it was and strong as its running mean.
    pub series: &'a [Series<'a>],
    /// A value to compare with, and what the legend calls it.
    pub level: Option<(&'a str, f64)>,
}

/// Draws up to four charts over the same steps, two in a row.
///
/// # Errors
///
/// The file cannot be written.
pub fn panels(path: &Path, title: &str, x_label: &str, charts: &[PanelOf]) -> Result<()> {
    draw(path, title, |area| {
        let columns = if charts.len() > 1 { 2 } else { 1 };
        let areas = area.split_evenly((charts.len().div_ceil(columns).max(1), columns));
        let all = charts.iter().flat_map(|chart| chart.series);
        let steps = padded(all.flat_map(|line| line.points).map(|p| p.0), 0.0);
        for (chart, area) in charts.iter().zip(&areas) {
            panel(area, chart, steps.clone(), x_label)?;
        }
        Ok(())
    })
}

fn panel(area: &Area, chart: &PanelOf, steps: Range<f64>, x_label: &str) -> Result<()> {
    let lines: Vec<_> = chart
        .series
        .iter()
        .map(|line| finite(line.points))
        .collect();
    let means: Vec<_> = lines.iter().map(|line| running_mean(line)).collect();
    let level = chart.level.filter(|level| level.1.is_finite());
    let means_of = means.iter().flatten().map(|p| p.1);
    let raw = lines.iter().flat_map(|line| without_extremes(line));
    let x = Axis {
        label: x_label,
        range: steps.clone(),
        format: plain,
    };
    let y = Axis {
        label: chart.y_label,
        range: padded(means_of.chain(raw).chain(level.map(|level| level.1)), 0.12),
        format: plain,
    };
    let range = y.range.clone();
    let mut drawn = axes(area, x, y)?;
    for (index, (line, mean)) in lines.iter().zip(&means).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let inside = line
            .iter()
            .map(|&(x, y)| (x, y.clamp(range.start, range.end)));
        drawn.draw_series(LineSeries::new(inside, colour.mix(0.3)))?;
        named_line(&mut drawn, chart.series[index].name, mean, colour)?;
    }
    if let Some((name, value)) = level {
        broken_line(
            &mut drawn,
            name,
            (steps.start, value),
            (steps.end, value),
            INK,
        )?;
    }
    // A limit lies above what it limits.
    match (chart.series.len(), level) {
        (_, Some(_)) => legend(&mut drawn, SeriesLabelPosition::MiddleLeft),
        (0 | 1, None) => Ok(()),
        (_, None) => legend(&mut drawn, SeriesLabelPosition::UpperLeft),
    }
}

/// Where a policy is after some training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GoodhartPoint {
    /// KL divergence from the start policy, in nats a response.
    pub kl: f64,
    /// The proxy reward, which is trained on: its change from the start policy's mean, in
    /// standard deviations of the start policy's rewards.
    pub proxy: f64,
    /// The gold reward, which is meant, likewise.
    pub gold: f64,
}

/// The way of one policy.
#[derive(Debug, Clone, Copy)]
pub struct GoodhartCurve<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Points in the order of training.
    pub points: &'a [GoodhartPoint],
}

/// Draws proxy reward (broken) and gold reward (whole) against the divergence from the start
/// policy, as Gao et al. 2022 do (arXiv 2210.10760, figure 1): where the lines part, the policy
/// exploits its judge. The horizontal axis is the root of the divergence, marked with the
/// divergence itself; `kl_limit` is marked by a line.
///
/// # Errors
///
/// The file cannot be written.
pub fn goodhart(
    path: &Path,
    title: &str,
    curves: &[GoodhartCurve],
    kl_limit: Option<f64>,
) -> Result<()> {
    let line = |curve: &GoodhartCurve, value: fn(&GoodhartPoint) -> f64| {
        let points = curve.points.iter();
        let points: Vec<_> = points.map(|p| (p.kl.max(0.0).sqrt(), value(p))).collect();
        finite(&points)
    };
    let lines: Vec<_> = curves
        .iter()
        .map(|curve| (line(curve, |p| p.proxy), line(curve, |p| p.gold)))
        .collect();
    let points = || {
        lines
            .iter()
            .flat_map(|(proxy, gold)| proxy.iter().chain(gold))
    };
    let limit = kl_limit
        .filter(|limit| limit.is_finite())
        .map(|limit| limit.max(0.0));
    let ends = points().map(|p| p.0).chain(limit.map(f64::sqrt));
    let right = ends.fold(0.0, f64::max);
    let x = Axis {
        label: "KL divergence from the start policy, nats a response (scale: its square root)",
        range: 0.0..if right > 0.0 { 1.02 * right } else { 1.0 },
        format: |root| plain((root * root * 100.0).round() / 100.0),
    };
    let y = Axis {
        label: "change in reward, standard deviations of the start policy",
        range: padded(points().map(|p| p.1).chain([0.0]), 0.08),
        format: plain,
    };
    let heights = y.range.clone();
    draw(path, title, |area| {
        let mut chart = axes(area, x, y)?;
        for (index, (curve, (proxy, gold))) in curves.iter().zip(&lines).enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let name = format!("{}, gold reward", curve.name);
            named_line(&mut chart, &name, gold, colour)?;
            chart.draw_series(gold.iter().map(|&p| Circle::new(p, 3, colour.filled())))?;
            let name = format!("{}, proxy reward", curve.name);
            broken_path(&mut chart, &name, proxy, colour)?;
        }
        if let Some(limit) = limit {
            let name = format!("limit of {} nats", plain(limit));
            let x = limit.sqrt();
            broken_line(&mut chart, &name, (x, heights.start), (x, heights.end), INK)?;
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)
    })
}
