// out += A B
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn store(row: u32, col: u32, value: f32) {
    let i = params.out_offset + row * params.out_stride + col;
    out[i] = out[i] + value;
}
