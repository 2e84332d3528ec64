// Rotary position embedding in place (Su et al. 2021, arXiv 2104.09864, section 3.4.2), in Hugging
// Face's half-rotated layout: elements i and i + D/2 of a query or key head are a pair, turned by
// the angle position * frequency[i].
//
// Bindings: 0 params, 1 counts (where the rows are live), 2 positions (rows) and 3 table
// (FINE + coarse, D; an operand), read; 4 qkv (rows, (H + 2G) D; an operand), of which the query and
// key heads are turned.
//
// The table holds turns as (cos, sin), one after another for i = 0 .. D/2: row b those of position
// b, row FINE + a those of position FINE a, which carry the scale. The turn of position FINE a + b
// is their product as complex numbers. `sign` is 1, or -1 for the transpose, which turns back.
//
// Dispatch: workgroups of 256, a thread two pairs. Rows past the live ones are not touched.
struct Params {
    rows: u32,
    rows_count: u32,
    // H + G
    heads: u32,
    // D / 4: half a head in twos, or a row of the table in fours.
    half: u32,
    // (H + 2G) D / 2: a row of qkv in twos.
    stride: u32,
    sign: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> qkv: array<vec2<f32>>;

@compute @workgroup_size(256)
fn rope(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let item = linear_workgroup(group, groups) * 256u + index;
    let row = item / (params.heads * params.half);
    if (row >= live(params.rows, params.rows_count)) {
        return;
    }
    let head = item / params.half % params.heads;
    let i = item % params.half;
    let position = positions[row];
    let fine = load_table(position % FINE * params.half + i);
    let coarse = load_table((FINE + position / FINE) * params.half + i);
    let cosines = fine.xz * coarse.xz - fine.yw * coarse.yw;
    let sines = params.sign * (fine.xz * coarse.yw + fine.yw * coarse.xz);
    let at = row * params.stride + head * 2u * params.half + i;
    let first = load_qkv(at);
    let second = load_qkv(at + params.half);
    qkv[at] = first * cosines - second * sines;
    qkv[at + params.half] = second * cosines + first * sines;
}
