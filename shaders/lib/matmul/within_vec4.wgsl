// Operands four at a time: every row starts at a multiple of four elements. A column past the last
// gives the last group, so that every read is of the matrix.
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;

fn within_a(start: u32, col: u32, columns: u32) -> vec4<f32> {
    return a[(start + min(col, columns - 1u)) / 4u];
}

fn within_b(start: u32, col: u32, columns: u32) -> vec4<f32> {
    return b[(start + min(col, columns - 1u)) / 4u];
}
