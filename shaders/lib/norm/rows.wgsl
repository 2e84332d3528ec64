// What LayerNorm and RMSNorm bind: x, dy, y, dx (rows, C); weight, dweight (C); rstd (rows);
// partials (chunks, sums, C), where chunks are of CHUNK_ROWS rows. What is read of (rows, C) and (C)
// are operands: load_x and so on.
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read_write> y: array<Columns>;
@group(0) @binding(5) var<storage, read_write> rstd_out: array<f32>;
@group(0) @binding(6) var<storage, read> rstd: array<f32>;
@group(0) @binding(8) var<storage, read_write> dx: array<Columns>;
@group(0) @binding(9) var<storage, read_write> partials: array<Columns>;
@group(0) @binding(10) var<storage, read_write> dweight: array<Columns>;

fn write_input_gradient(at: u32, gradient: Columns) {
    if (ACCUMULATE) {
        dx[at] = load_dx(at) + gradient;
    } else {
        dx[at] = gradient;
    }
}
