//! Copies of rows by a table.

/// `out[destination] = rows[source][column..column + width]` for each copy; `rows` is `[R, stride]`,
/// `out` `[M, width]`.
pub fn copy_rows(
    rows: &[f64],
    stride: usize,
    column: usize,
    copies: &[(usize, usize)],
    out: &mut [f64],
    width: usize,
) {
    for &(source, destination) in copies {
        let values = &rows[source * stride + column..][..width];
        out[destination * width..][..width].copy_from_slice(values);
    }
}
