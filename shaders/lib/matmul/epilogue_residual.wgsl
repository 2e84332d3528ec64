// out = A B + residual, residual of out's shape, in a buffer of its own
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<f32>;

fn store(row: u32, col: u32, value: f32) {
    let i = params.out_offset + row * params.out_stride + col;
    out[i] = value + residual[i];
}
