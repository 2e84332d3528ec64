// Operands of any row length. What is read past a row's end is never used.
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

fn load_a(row: u32, col: u32) -> vec4<f32> {
    let i = params.a_offset + row * params.a_stride + col;
    return vec4<f32>(a[i], a[i + 1u], a[i + 2u], a[i + 3u]);
}

fn load_b(row: u32, col: u32) -> vec4<f32> {
    let i = params.b_offset + row * params.b_stride + col;
    return vec4<f32>(b[i], b[i + 1u], b[i + 2u], b[i + 3u]);
}
