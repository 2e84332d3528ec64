// What the attention kernels share: parameters, work list, and which row holds which key.
//
// Heads are 4 WIDTH4 wide: a row of `qkv` is query heads | key heads | value heads, and all offsets
// below count vec4. Query head h reads key/value head h / (H / G).
//
// The keys of a segment are numbered j = 0, 1, ...: first the rows of its prefix, then its own.
// The row `start + i` sees the first `prefix_len + i + 1` of them.

// Below every score, and finite: exp(LOWEST - x) is exactly 0.
const LOWEST: f32 = -1e30;

struct Params {
    tiles: u32,
    tiles_count: u32,
    heads: u32,
    kv_heads: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

struct Segment {
    start: u32,
    len: u32,
    prefix_start: u32,
    prefix_len: u32,
    position: u32,
    query_end: u32,
    pad0: u32,
    pad1: u32,
}

// At most 32 consecutive rows of a segment.
struct Tile {
    segment: u32,
    row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

fn qkv_stride() -> u32 {
    return (params.heads + 2u * params.kv_heads) * WIDTH4;
}

fn query_at(row: u32, head: u32) -> u32 {
    return row * qkv_stride() + head * WIDTH4;
}

fn key_at(row: u32, kv_head: u32) -> u32 {
    return row * qkv_stride() + (params.heads + kv_head) * WIDTH4;
}

fn value_at(row: u32, kv_head: u32) -> u32 {
    return row * qkv_stride() + (params.heads + params.kv_heads + kv_head) * WIDTH4;
}

// Where a row and query head lie in `out` and `dout`, (T, H D).
fn out_at(row: u32, head: u32) -> u32 {
    return (row * params.heads + head) * WIDTH4;
}

fn key_row(segment: Segment, j: u32) -> u32 {
    return select(
        segment.start + j - segment.prefix_len,
        segment.prefix_start + j,
        j < segment.prefix_len,
    );
}

// How many keys the rows before `end` see at most.
fn keys_before(segment: Segment, end: u32) -> u32 {
    return segment.prefix_len + end - segment.start;
}

fn tile_end(segment: Segment, row: u32) -> u32 {
    return min(row + 32u, segment.start + segment.len);
}

// Adds the dot product of `a` and `b` in a stated order: a score then has the same rounding in
// every kernel, and `dout . v - dout . out` is exactly 0 where one key has all the weight, as it
// has where scores are large.
fn dot_after(sum: f32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

// The same with four columns at once.
fn dots(sums: vec4<f32>, a: vec4<f32>, columns: mat4x4<f32>) -> vec4<f32> {
    let b = transpose(columns);
    return fma(vec4<f32>(a.w), b[3], fma(vec4<f32>(a.z), b[2],
        fma(vec4<f32>(a.y), b[1], fma(vec4<f32>(a.x), b[0], sums))));
}

// What the forward pass has given four keys of a row, or a key in four rows, from the scaled scores
// and the rows' log-sum-exp; what a row does not see has none.
fn attention_weights(scores: vec4<f32>, lses: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    let zero = vec4<f32>(0.0);
    return select(zero, exp(min(scores - lses, zero)), seen);
}
