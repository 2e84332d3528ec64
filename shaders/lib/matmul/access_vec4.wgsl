// Operands four at a time: every row starts at a multiple of four elements.
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;

fn load_a(row: u32, col: u32) -> vec4<f32> {
    return a[(params.a_offset + row * params.a_stride + col) / 4u];
}

fn load_b(row: u32, col: u32) -> vec4<f32> {
    return b[(params.b_offset + row * params.b_stride + col) / 4u];
}
