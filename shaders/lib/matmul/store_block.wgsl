// Four rows of outputs, of which those before row m are stored.
fn store_block(row: u32, col: u32, m: u32, block: mat4x4<f32>) {
    if (row < m) {
        store_row(row, col, block[0]);
    }
    if (row + 1u < m) {
        store_row(row + 1u, col, block[1]);
    }
    if (row + 2u < m) {
        store_row(row + 2u, col, block[2]);
    }
    if (row + 3u < m) {
        store_row(row + 3u, col, block[3]);
    }
}
