// Operands of any row length. Columns past the last give the last, so that every read is of the
// matrix.
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

fn four_within(start: u32, col: u32, columns: u32) -> vec4<u32> {
    return start + min(vec4<u32>(col, col + 1u, col + 2u, col + 3u), vec4<u32>(columns - 1u));
}

fn within_a(start: u32, col: u32, columns: u32) -> vec4<f32> {
    let i = four_within(start, col, columns);
    return vec4<f32>(a[i.x], a[i.y], a[i.z], a[i.w]);
}

fn within_b(start: u32, col: u32, columns: u32) -> vec4<f32> {
    let i = four_within(start, col, columns);
    return vec4<f32>(b[i.x], b[i.y], b[i.z], b[i.w]);
}
