// Four outputs of a row, of which those before column n are stored one by one.
fn store_row(row: u32, col: u32, values: vec4<f32>) {
    if (col < params.n) {
        store(row, col, values.x);
    }
    if (col + 1u < params.n) {
        store(row, col + 1u, values.y);
    }
    if (col + 2u < params.n) {
        store(row, col + 2u, values.z);
    }
    if (col + 3u < params.n) {
        store(row, col + 3u, values.w);
    }
}
