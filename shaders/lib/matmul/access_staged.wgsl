// Operands that were copied into textures, a texel four elements, 4096 texels a row: every row of
// the matrix starts at a multiple of four elements. What lies past the copy reads as zero or as
// something of an earlier one, and is never used.
@group(0) @binding(2) var a: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var b: texture_storage_2d<rgba32float, read>;

fn load_a(row: u32, col: u32) -> vec4<f32> {
    let texel = (params.a_offset + row * params.a_stride + col) / 4u;
    return textureLoad(a, vec2<u32>(texel % 4096u, texel / 4096u));
}

fn load_b(row: u32, col: u32) -> vec4<f32> {
    let texel = (params.b_offset + row * params.b_stride + col) / 4u;
    return textureLoad(b, vec2<u32>(texel % 4096u, texel / 4096u));
}
