// pre = A B + bias (kept for the backward pass), out = gelu(pre)
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> pre: array<f32>;

fn store(row: u32, col: u32, value: f32) {
    let i = params.out_offset + row * params.out_stride + col;
    let x = value + bias[col];
    pre[i] = x;
    out[i] = gelu(x);
}
