// Each token's position has a row of its own, which is added to the token's.
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> position_table: array<Columns>;

fn position_columns(row: u32, column: u32) -> Columns {
    return position_table[positions[row] * (params.columns / COLUMNS) + column];
}
