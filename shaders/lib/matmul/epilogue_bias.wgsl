// out = A B + bias, bias of shape (N)
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;
@group(0) @binding(5) var<storage, read> bias: array<Columns>;

fn store(row: u32, col: u32, value: Columns) {
    out[(params.out_offset + row * params.out_stride + col) / COLUMNS] = value + bias[col / COLUMNS];
}
