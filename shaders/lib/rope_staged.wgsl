// The queries and keys before they are turned, from a copy in a texture: see rope.wgsl.
@group(0) @binding(5) var qkv_before: texture_storage_2d<rgba32float, read>;

fn load_qkv(at: u32) -> vec2<f32> {
    let texel = at / 2u;
    let four = textureLoad(qkv_before, vec2<u32>(texel % 4096u, texel / 4096u));
    return select(four.xy, four.zw, at % 2u == 1u);
}
