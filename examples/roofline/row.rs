//! A timed case beside the device's limit: a row of the table, an entry of the file, a point.

use comfy_table::Table;
use example_tools::plot::RooflinePoint;
use example_tools::table::table_of;
use prefgrad::Cost;
use serde::Serialize;

use crate::probe::Roof;

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// As in `nn.matmul`.
    pub kernel: &'static str,
    /// As in `nn 512x512x512 store`.
    pub case: String,
    /// Floating-point operations, as the kernel states them.
    pub flops: u64,
    /// Bytes, each tensor counted once.
    pub bytes: u64,
    /// Of one replay.
    pub seconds: f64,
    /// The shortest time that the device's limits allow.
    pub limit_seconds: f64,
    /// `limit_seconds / seconds`.
    pub share: f64,
}

impl Row {
    /// A case that took `seconds`.
    pub fn new(
        kernel: &'static str,
        case: impl Into<String>,
        cost: Cost,
        seconds: f64,
        roof: &Roof,
    ) -> Self {
        let limit_seconds = roof.seconds(cost);
        Self {
            kernel,
            case: case.into(),
            flops: cost.flops,
            bytes: cost.bytes,
            seconds,
            limit_seconds,
            share: limit_seconds / seconds,
        }
    }

    fn gflop_s(&self) -> f64 {
        self.flops as f64 / self.seconds / 1e9
    }

    fn gb_s(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }

    fn intensity(&self) -> f64 {
        self.flops as f64 / self.bytes.max(1) as f64
    }

    /// What the limit allows, in GFLOP/s; in GB/s where a kernel only moves.
    fn limit(&self) -> String {
        match self.flops {
            0 => format!(
                "{} GB/s",
                figure(self.bytes as f64 / self.limit_seconds / 1e9)
            ),
            flops => format!(
                "{} GFLOP/s",
                figure(flops as f64 / self.limit_seconds / 1e9)
            ),
        }
    }

    /// The case's point in the picture.
    pub fn point(&self) -> RooflinePoint<'_> {
        RooflinePoint {
            family: self.kernel,
            flops_per_byte: self.intensity(),
            gflop_s: self.gflop_s(),
            share: self.share,
        }
    }
}

/// Three digits, as far as they are behind the point.
fn figure(value: f64) -> String {
    let digits = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ if value >= 0.9995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The figure of a kernel that computes.
fn if_any(flops: u64, value: f64) -> String {
    match flops {
        0 => "-".to_owned(),
        _ => figure(value),
    }
}

/// In milliseconds, or in microseconds where three digits of those say more.
fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1e-4 => format!("{} µs", figure(1e6 * seconds)),
        _ => format!("{} ms", figure(1e3 * seconds)),
    }
}

/// The rows, aligned.
pub fn table(rows: &[Row]) -> Table {
    let mut table = table_of(
        [
            "kernel",
            "case",
            "time",
            "GFLOP/s",
            "GB/s",
            "FLOP/byte",
            "limit there",
            "share",
        ],
        2,
    );
    for row in rows {
        table.add_row([
            row.kernel.to_owned(),
            shortened(&row.case),
            duration(row.seconds),
            if_any(row.flops, row.gflop_s()),
            figure(row.gb_s()),
            if_any(row.flops, row.intensity()),
            row.limit(),
            format!("{:.0} %", 100.0 * row.share),
        ]);
    }
    table
}

/// The case's name in a line's width; the file has the whole.
fn shortened(case: &str) -> String {
    const WIDTH: usize = 44;
    if case.chars().count() <= WIDTH {
        return case.to_owned();
    }
    let start: String = case.chars().take(WIDTH - 3).collect();
    format!("{start}...")
}
