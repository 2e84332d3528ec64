//! Tables of figures for a terminal.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table without lines, whose columns from number `first` on are aligned to the right.
pub fn table_of<const N: usize>(header: [&str; N], first: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
