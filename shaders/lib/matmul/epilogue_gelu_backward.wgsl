// out = A B * gelu'(pre): the gradient before a GELU whose input was pre, of out's shape
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;
@group(0) @binding(5) var<storage, read> pre: array<Columns>;

fn store(row: u32, col: u32, value: Columns) {
    let i = (params.out_offset + row * params.out_stride + col) / COLUMNS;
    out[i] = value * gelu_derivative_columns(pre[i]);
}
