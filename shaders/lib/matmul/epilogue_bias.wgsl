// out = A B + bias, bias of shape (N)
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

fn store(row: u32, col: u32, value: f32) {
    out[params.out_offset + row * params.out_stride + col] = value + bias[col];
}
