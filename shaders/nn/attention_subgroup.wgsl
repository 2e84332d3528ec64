// Causal grouped-query attention, forward, as attention.wgsl computes it, for software drivers,
// where a broadcast inside a subgroup is cheaper than a load that all lanes share.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, written), 6 lse (T, H, written).
//
// Dispatch: a workgroup of 16 threads a tile and query head, two rows a thread. Keys are taken
// eight a step: lane i of a subgroup loads key i mod 8, and the eight lanes' loads are broadcast
// in turn, so a subgroup needs 8 lanes or more. Rows past the tile's end repeat its last row, for
// the sake of the broadcasts, and are not written.
//
// Sources: as attention.wgsl.
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

fn highest_of(a: vec4<f32>, b: vec4<f32>) -> f32 {
    let c = max(a, b);
    return max(max(c.x, c.y), max(c.z, c.w));
}

@compute @workgroup_size(16)
fn attention_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let index = linear_workgroup(group, groups);
    let head = index % params.heads;
    if (index / params.heads >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[index / params.heads];
    let segment = segments[tile.segment];
    let end = tile_end(segment, tile.row);
    let kv_head = head / (params.heads / params.kv_heads);
    let keys = keys_before(segment, end);
    let rows = min(vec2<u32>(tile.row + thread, tile.row + thread + 16u), vec2<u32>(end - 1u));
    let seen_a = vec4<u32>(keys_before(segment, rows.x + 1u));
    let seen_b = vec4<u32>(keys_before(segment, rows.y + 1u));

    var query_a: array<vec4<f32>, WIDTH4>;
    var query_b: array<vec4<f32>, WIDTH4>;
    var sum_a: array<vec4<f32>, WIDTH4>;
    var sum_b: array<vec4<f32>, WIDTH4>;
    let query_start = vec2<u32>(query_at(rows.x, head), query_at(rows.y, head));
    // unroll
    for (var d = 0u; d < WIDTH4; d += 1u) {
        query_a[d] = load_qkv(query_start.x + d);
        query_b[d] = load_qkv(query_start.y + d);
        sum_a[d] = vec4<f32>(0.0);
        sum_b[d] = vec4<f32>(0.0);
    }
    var highest = vec2<f32>(LOWEST);
    var total = vec2<f32>(0.0);
    for (var first = 0u; first < keys; first += 8u) {
        let own_row = key_row(segment, min(first + lane % 8u, keys - 1u));
        let key_start = key_at(own_row, kv_head);
        let value_start = value_at(own_row, kv_head);
        var a_low = vec4<f32>(0.0);
        var a_high = vec4<f32>(0.0);
        var b_low = vec4<f32>(0.0);
        var b_high = vec4<f32>(0.0);
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let own = load_qkv(key_start + d);
            let low = broadcast_low(own);
            let high = broadcast_high(own);
            a_low = dots(a_low, query_a[d], low);
            a_high = dots(a_high, query_a[d], high);
            b_low = dots(b_low, query_b[d], low);
            b_high = dots(b_high, query_b[d], high);
        }
        let j_low = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        let j_high = j_low + vec4<u32>(4u);
        let lowest = vec4<f32>(LOWEST);
        a_low = select(lowest, a_low * params.scale, j_low < seen_a);
        a_high = select(lowest, a_high * params.scale, j_high < seen_a);
        b_low = select(lowest, b_low * params.scale, j_low < seen_b);
        b_high = select(lowest, b_high * params.scale, j_high < seen_b);
        let higher = max(highest, vec2<f32>(highest_of(a_low, a_high), highest_of(b_low, b_high)));
        let shrink = exp(highest - higher);
        highest = higher;
        let zero = vec4<f32>(0.0);
        a_low = select(zero, exp(a_low - higher.x), j_low < seen_a);
        a_high = select(zero, exp(a_high - higher.x), j_high < seen_a);
        b_low = select(zero, exp(b_low - higher.y), j_low < seen_b);
        b_high = select(zero, exp(b_high - higher.y), j_high < seen_b);
        let ones = vec4<f32>(1.0);
        total = total * shrink + vec2<f32>(dot(a_low + a_high, ones), dot(b_low + b_high, ones));
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let own = load_qkv(value_start + d);
            let low = broadcast_low(own);
            let high = broadcast_high(own);
            sum_a[d] = sum_a[d] * shrink.x + low * a_low + high * a_high;
            sum_b[d] = sum_b[d] * shrink.y + low * b_low + high * b_high;
        }
    }
    if (tile.row + thread < end) {
        let start = out_at(rows.x, head);
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            out[start + d] = sum_a[d] / total.x;
        }
        lse[rows.x * params.heads + head] = highest.x + log(total.x);
    }
    if (tile.row + thread + 16u < end) {
        let start = out_at(rows.y, head);
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            out[start + d] = sum_b[d] / total.y;
        }
        lse[rows.y * params.heads + head] = highest.y + log(total.y);
    }
}
