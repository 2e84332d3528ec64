// Operands four at a time: every row starts at a multiple of four elements.
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> b: array<vec4<f32>>;

// Places of operands count so many elements.
const UNIT: u32 = 4u;

fn a_at(place: u32) -> vec4<f32> {
    return a[place];
}

fn b_at(place: u32) -> vec4<f32> {
    return b[place];
}

// The same by element, where a column past the last gives the last group, so that every read is of
// the matrix.
fn within_a(start: u32, col: u32, columns: u32) -> vec4<f32> {
    return a[(start + min(col, columns - 1u)) / UNIT];
}

fn within_b(start: u32, col: u32, columns: u32) -> vec4<f32> {
    return b[(start + min(col, columns - 1u)) / UNIT];
}
