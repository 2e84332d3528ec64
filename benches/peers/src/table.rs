//! The tables that come out.

use comfy_table::{CellAlignment, Table, presets};

use crate::measure::Measured;
use crate::rows::Peer;
use crate::runner::Line;

type Figure = fn(&Measured) -> f64;

const CPU: Figure = |run| run.cpu_ms;
const WALL: Figure = |run| run.wall_ms;

/// CPU time of a step with the ratios to the first peer's, memory and the first step.
pub fn cpu(lines: &[Line], peers: &[Peer]) -> Table {
    let mut columns = vec![];
    times(&mut columns, peers, "CPU ms", CPU);
    for &peer in peers {
        let cell = move |line: &Line| figure(line, peer, |run| run.peak_mib);
        columns.push(column(format!("peak MiB\n{peer}"), cell));
    }
    for &peer in peers {
        let cell = move |line: &Line| figure(line, peer, |run| run.first_wall_s);
        columns.push(column(format!("first s\n{peer}"), cell));
    }
    table(lines, &columns)
}

/// Wall time of a step with the ratios to the first peer's, CPU time of the first step.
pub fn wall(lines: &[Line], peers: &[Peer]) -> Table {
    let mut columns = vec![];
    times(&mut columns, peers, "wall ms", WALL);
    for &peer in peers {
        let cell = move |line: &Line| figure(line, peer, |run| run.first_cpu_s);
        columns.push(column(format!("first CPU s\n{peer}"), cell));
    }
    table(lines, &columns)
}

/// What else there is to say of the rows: losses of steps, and who failed and why.
pub fn remarks(lines: &[Line]) -> Vec<String> {
    let remark = |line: &Line| -> Vec<String> {
        let row = line.row;
        let outcomes = line.outcomes.iter();
        let said = outcomes.filter_map(|(peer, outcome)| match outcome {
            Err(reason) => Some(format!("{row}: {peer} fails: {reason}")),
            Ok(run) if row.is_step() => {
                let (first, last) = (run.first.first()?, run.last.first()?);
                let (from, to) = (first.projection, last.projection);
                Some(format!(
                    "{row}: {peer}'s loss falls from {from:.6} to {to:.6}"
                ))
            }
            Ok(_) => None,
        });
        said.collect()
    };
    lines.iter().flat_map(remark).collect()
}

/// A heading and what stands under it for a row.
struct Column {
    heading: String,
    cell: Box<dyn Fn(&Line) -> String>,
}

fn column(heading: String, cell: impl Fn(&Line) -> String + 'static) -> Column {
    Column {
        heading,
        cell: Box::new(cell),
    }
}

/// A time for each peer, then what the others' are to the first one's.
fn times(columns: &mut Vec<Column>, peers: &[Peer], unit: &str, of: Figure) {
    for &peer in peers {
        let cell = move |line: &Line| figure(line, peer, of);
        columns.push(column(format!("{unit}\n{peer}"), cell));
    }
    let Some((&first, others)) = peers.split_first() else {
        return;
    };
    for &other in others {
        let cell = move |line: &Line| {
            let ratio = line.measured(other).zip(line.measured(first));
            ratio.map_or_else(
                || "-".into(),
                |(other, first)| format!("{:.2}", of(other) / of(first)),
            )
        };
        columns.push(column(format!("{other} /\n{first}"), cell));
    }
}

fn figure(line: &Line, peer: Peer, of: Figure) -> String {
    match line.of(peer) {
        None => "-".into(),
        Some(Err(reason)) if reason.starts_with("wrong") => "wrong".into(),
        Some(Err(_)) => "fails".into(),
        Some(Ok(run)) => significant(of(run)),
    }
}

/// Three digits that count, or all before the point.
fn significant(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

fn table(lines: &[Line], columns: &[Column]) -> Table {
    let mut table = Table::new();
    let headings = columns.iter().map(|column| column.heading.as_str());
    table
        .load_style(presets::NOTHING)
        .set_header(std::iter::once("row").chain(headings));
    for line in lines {
        let cells = columns.iter().map(|column| (column.cell)(line));
        table.add_row(std::iter::once(line.row.to_string()).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
