// Gradient of the queries of attention, as attention_dq.wgsl computes it, for software
// drivers, where a broadcast inside a subgroup is cheaper than a load that all lanes share.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, read), 6 dout (T, H D, read), 7 lse (T, H, read), 8 delta (T, H, written),
// 9 dqkv (T, (H + 2G) D, the query columns written).
//
// Dispatch: a workgroup of 32 threads a tile and query head, one row a thread; keys as in
// attention_subgroup.wgsl.
//
// Source: as attention_dq.wgsl.
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;
@group(0) @binding(9) var<storage, read_write> dqkv: array<vec4<f32>>;

@compute @workgroup_size(32)
fn attention_dq_subgroup(
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
    let row = min(tile.row + thread, end - 1u);
    let kv_head = head / (params.heads / params.kv_heads);
    let seen = vec4<u32>(keys_before(segment, row + 1u));
    let keys = keys_before(segment, end);

    var query: array<vec4<f32>, WIDTH4>;
    var incoming: array<vec4<f32>, WIDTH4>;
    var sum: array<vec4<f32>, WIDTH4>;
    var own_key: array<vec4<f32>, WIDTH4>;
    let query_start = query_at(row, head);
    let out_start = out_at(row, head);
    var row_delta = 0.0;
    for (var d = 0u; d < WIDTH4; d += 1u) {
        query[d] = load_qkv(query_start + d);
        incoming[d] = load_dout(out_start + d);
        row_delta = dot_after(row_delta, incoming[d], load_out(out_start + d));
        sum[d] = vec4<f32>(0.0);
    }
    let row_lse = lse[row * params.heads + head];
    for (var first = 0u; first < keys; first += 8u) {
        let own_row = key_row(segment, min(first + lane % 8u, keys - 1u));
        let key_start = key_at(own_row, kv_head);
        let value_start = value_at(own_row, kv_head);
        var low = vec4<f32>(0.0);
        var high = vec4<f32>(0.0);
        var dlow = vec4<f32>(0.0);
        var dhigh = vec4<f32>(0.0);
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let k = load_qkv(key_start + d);
            let v = load_qkv(value_start + d);
            own_key[d] = k;
            low = dots(low, query[d], broadcast_low(k));
            high = dots(high, query[d], broadcast_high(k));
            dlow = dots(dlow, incoming[d], broadcast_low(v));
            dhigh = dots(dhigh, incoming[d], broadcast_high(v));
        }
        let j = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        let zero = vec4<f32>(0.0);
        low = select(zero, exp(min(low * params.scale - row_lse, zero)), j < seen);
        high = select(
            zero, exp(min(high * params.scale - row_lse, zero)), j + vec4<u32>(4u) < seen,
        );
        low *= dlow - row_delta;
        high *= dhigh - row_delta;
        for (var d = 0u; d < WIDTH4; d += 1u) {
            sum[d] += broadcast_low(own_key[d]) * low + broadcast_high(own_key[d]) * high;
        }
    }
    if (tile.row + thread >= end) {
        return;
    }
    for (var d = 0u; d < WIDTH4; d += 1u) {
        dqkv[query_start + d] = sum[d] * params.scale;
    }
    delta[row * params.heads + head] = row_delta;
}
