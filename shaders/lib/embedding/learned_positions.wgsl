// Each token's position has a row of its own, which is added to the token's.
@group(0) @binding(3) var<storage, read> positions: array<u32>;

fn position_columns(row: u32, column: u32) -> Columns {
    return load_position_table(positions[row] * (params.columns / COLUMNS) + column);
}
