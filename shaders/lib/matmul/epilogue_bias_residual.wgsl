// out = A B + bias + residual, residual of out's shape, in a buffer of its own
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;
@group(0) @binding(5) var<storage, read> bias: array<Columns>;
@group(0) @binding(6) var<storage, read> residual: array<Columns>;

fn store(row: u32, col: u32, value: Columns) {
    let i = (params.out_offset + row * params.out_stride + col) / COLUMNS;
    out[i] = value + bias[col / COLUMNS] + residual[i];
}
