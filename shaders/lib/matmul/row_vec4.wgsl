// Four outputs of a row, stored at once where n and all strides are multiples of four.
fn store_row(row: u32, col: u32, values: vec4<f32>) {
    if (col < params.n) {
        store(row, col, values);
    }
}
