// Gradient of the queries of attention, as attention_dq.wgsl computes it, for software
// drivers, where a broadcast inside a subgroup is cheaper than a load that all lanes share.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, read), 6 dout (T, H D, read), 7 lse (T, H, read), 8 delta (T, H, written),
// 9 dqkv (T, (H + 2G) D, the query columns written).
//
// Dispatch: as attention_subgroup.wgsl.
//
// Source: as attention_dq.wgsl.
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;
@group(0) @binding(9) var<storage, read_write> dqkv: array<vec4<f32>>;

@compute @workgroup_size(16)
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
    let kv_head = head / (params.heads / params.kv_heads);
    let keys = keys_before(segment, end);
    let rows = min(vec2<u32>(tile.row + thread, tile.row + thread + 16u), vec2<u32>(end - 1u));
    let seen_a = vec4<u32>(keys_before(segment, rows.x + 1u));
    let seen_b = vec4<u32>(keys_before(segment, rows.y + 1u));

    var query_a: array<vec4<f32>, WIDTH4>;
    var query_b: array<vec4<f32>, WIDTH4>;
    var dout_a: array<vec4<f32>, WIDTH4>;
    var dout_b: array<vec4<f32>, WIDTH4>;
    var sum_a: array<vec4<f32>, WIDTH4>;
    var sum_b: array<vec4<f32>, WIDTH4>;
    var own_key: array<vec4<f32>, WIDTH4>;
    let query_start = vec2<u32>(query_at(rows.x, head), query_at(rows.y, head));
    let out_start = vec2<u32>(out_at(rows.x, head), out_at(rows.y, head));
    var deltas = vec2<f32>(0.0);
    // unroll
    for (var d = 0u; d < WIDTH4; d += 1u) {
        query_a[d] = load_qkv(query_start.x + d);
        query_b[d] = load_qkv(query_start.y + d);
        dout_a[d] = load_dout(out_start.x + d);
        dout_b[d] = load_dout(out_start.y + d);
        deltas.x = dot_after(deltas.x, dout_a[d], load_out(out_start.x + d));
        deltas.y = dot_after(deltas.y, dout_b[d], load_out(out_start.y + d));
        sum_a[d] = vec4<f32>(0.0);
        sum_b[d] = vec4<f32>(0.0);
    }
    let lse_a = vec4<f32>(lse[rows.x * params.heads + head]);
    let lse_b = vec4<f32>(lse[rows.y * params.heads + head]);
    for (var first = 0u; first < keys; first += 8u) {
        let own_row = key_row(segment, min(first + lane % 8u, keys - 1u));
        let key_start = key_at(own_row, kv_head);
        let value_start = value_at(own_row, kv_head);
        var low_a = vec4<f32>(0.0);
        var high_a = vec4<f32>(0.0);
        var low_b = vec4<f32>(0.0);
        var high_b = vec4<f32>(0.0);
        var dlow_a = vec4<f32>(0.0);
        var dhigh_a = vec4<f32>(0.0);
        var dlow_b = vec4<f32>(0.0);
        var dhigh_b = vec4<f32>(0.0);
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            own_key[d] = load_qkv(key_start + d);
            let key_low = broadcast_low(own_key[d]);
            let key_high = broadcast_high(own_key[d]);
            low_a = dots(low_a, query_a[d], key_low);
            high_a = dots(high_a, query_a[d], key_high);
            low_b = dots(low_b, query_b[d], key_low);
            high_b = dots(high_b, query_b[d], key_high);
            let value = load_qkv(value_start + d);
            let value_low = broadcast_low(value);
            let value_high = broadcast_high(value);
            dlow_a = dots(dlow_a, dout_a[d], value_low);
            dhigh_a = dots(dhigh_a, dout_a[d], value_high);
            dlow_b = dots(dlow_b, dout_b[d], value_low);
            dhigh_b = dots(dhigh_b, dout_b[d], value_high);
        }
        let j_low = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        let j_high = j_low + vec4<u32>(4u);
        let scale = params.scale;
        low_a = attention_weights(low_a * scale, lse_a, j_low < seen_a) * (dlow_a - deltas.x);
        high_a = attention_weights(high_a * scale, lse_a, j_high < seen_a) * (dhigh_a - deltas.x);
        low_b = attention_weights(low_b * scale, lse_b, j_low < seen_b) * (dlow_b - deltas.y);
        high_b = attention_weights(high_b * scale, lse_b, j_high < seen_b) * (dhigh_b - deltas.y);
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let key_low = broadcast_low(own_key[d]);
            let key_high = broadcast_high(own_key[d]);
            sum_a[d] += key_low * low_a + key_high * high_a;
            sum_b[d] += key_low * low_b + key_high * high_b;
        }
    }
    if (tile.row + thread < end) {
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            dqkv[query_start.x + d] = sum_a[d] * params.scale;
        }
        delta[rows.x * params.heads + head] = deltas.x;
    }
    if (tile.row + thread + 16u < end) {
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            dqkv[query_start.y + d] = sum_b[d] * params.scale;
        }
        delta[rows.y * params.heads + head] = deltas.y;
    }
}
