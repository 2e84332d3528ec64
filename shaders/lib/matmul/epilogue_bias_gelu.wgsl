// pre = A B + bias (kept for the backward pass), out = gelu(pre)
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;
@group(0) @binding(5) var<storage, read> bias: array<Columns>;
@group(0) @binding(6) var<storage, read_write> pre: array<Columns>;

fn store(row: u32, col: u32, value: Columns) {
    let i = (params.out_offset + row * params.out_stride + col) / COLUMNS;
    let x = value + bias[col / COLUMNS];
    pre[i] = x;
    out[i] = gelu_columns(x);
}
