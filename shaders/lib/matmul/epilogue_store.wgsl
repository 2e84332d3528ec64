// out = A B
@group(0) @binding(4) var<storage, read_write> out: array<Columns>;

fn store(row: u32, col: u32, value: Columns) {
    out[(params.out_offset + row * params.out_stride + col) / COLUMNS] = value;
}
