// What both forms of attention with a cache share: parameters, tensors, and where things lie.
//
// A row of the cache is key heads | value heads; a row of `qkv` begins with its query heads. All
// offsets count vec4. Query head h reads key/value head h / (H / G).

// Below every score, and finite: exp(LOWEST - x) is exactly 0.
const LOWEST: f32 = -1e30;

struct Params {
    rows: u32,
    rows_count: u32,
    heads: u32,
    kv_heads: u32,
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> cache: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> sequences: array<Sequence>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

fn query_at(row: u32, head: u32) -> u32 {
    return (row * (params.heads + 2u * params.kv_heads) + head) * WIDTH4;
}

// Where the j-th key of a sequence lies; its value follows G heads later.
fn key_at(sequence: Sequence, j: u32, kv_head: u32) -> u32 {
    let row = select(
        sequence.start + j - sequence.prefix_len,
        sequence.prefix_start + j,
        j < sequence.prefix_len,
    );
    return (row * 2u * params.kv_heads + kv_head) * WIDTH4;
}

fn out_at(row: u32, head: u32) -> u32 {
    return (row * params.heads + head) * WIDTH4;
}
