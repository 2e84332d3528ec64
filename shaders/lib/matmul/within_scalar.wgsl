// Operands of any row length.
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;

// Places of operands count so many elements.
const UNIT: u32 = 1u;

fn a_at(place: u32) -> vec4<f32> {
    return vec4<f32>(a[place], a[place + 1u], a[place + 2u], a[place + 3u]);
}

fn b_at(place: u32) -> vec4<f32> {
    return vec4<f32>(b[place], b[place + 1u], b[place + 2u], b[place + 3u]);
}

// The same where columns past the last give the last, so that every read is of the matrix.
fn within_a(start: u32, col: u32, columns: u32) -> vec4<f32> {
    let i = start + four_of(col, columns);
    return vec4<f32>(a[i.x], a[i.y], a[i.z], a[i.w]);
}

fn within_b(start: u32, col: u32, columns: u32) -> vec4<f32> {
    let i = start + four_of(col, columns);
    return vec4<f32>(b[i.x], b[i.y], b[i.z], b[i.w]);
}
