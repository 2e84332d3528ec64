// Gradients of the keys and values of attention, as attention_dkv.wgsl computes them, for software
// drivers, where a broadcast inside a subgroup is cheaper than a load that all lanes share.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 dout (T, H D, read), 6 lse (T, H, read), 7 delta (T, H, read), 8 dqkv (T, (H + 2G) D, the key
// and value columns written).
//
// Dispatch: a workgroup of 16 threads a tile of keys and key/value head, two keys a thread. Rows
// are taken eight a step: lane i of a subgroup loads row i mod 8, and the eight lanes' loads are
// broadcast in turn, so a subgroup needs 8 lanes or more. Keys past the tile's end repeat its last
// key, for the sake of the broadcasts, and are not written.
//
// Source: as attention_dkv.wgsl.
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(6) var<storage, read> lse: array<f32>;
@group(0) @binding(7) var<storage, read> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<f32>>;

@compute @workgroup_size(16)
fn attention_dkv_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let index = linear_workgroup(group, groups);
    let kv_head = index % params.kv_heads;
    if (index / params.kv_heads >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[index / params.kv_heads];
    let segment = segments[tile.segment];
    let key_end = tile_end(segment, tile.row);
    let keys = min(vec2<u32>(tile.row + thread, tile.row + thread + 16u), vec2<u32>(key_end - 1u));
    var k_a: array<vec4<f32>, WIDTH4>;
    var k_b: array<vec4<f32>, WIDTH4>;
    var v_a: array<vec4<f32>, WIDTH4>;
    var v_b: array<vec4<f32>, WIDTH4>;
    var dk_a: array<vec4<f32>, WIDTH4>;
    var dk_b: array<vec4<f32>, WIDTH4>;
    var dv_a: array<vec4<f32>, WIDTH4>;
    var dv_b: array<vec4<f32>, WIDTH4>;
    var own_query: array<vec4<f32>, WIDTH4>;
    var own_dout: array<vec4<f32>, WIDTH4>;
    let key_start = vec2<u32>(key_at(keys.x, kv_head), key_at(keys.y, kv_head));
    let value_start = vec2<u32>(value_at(keys.x, kv_head), value_at(keys.y, kv_head));
    // unroll
    for (var d = 0u; d < WIDTH4; d += 1u) {
        k_a[d] = load_qkv(key_start.x + d);
        k_b[d] = load_qkv(key_start.y + d);
        v_a[d] = load_qkv(value_start.x + d);
        v_b[d] = load_qkv(value_start.y + d);
        dk_a[d] = vec4<f32>(0.0);
        dk_b[d] = vec4<f32>(0.0);
        dv_a[d] = vec4<f32>(0.0);
        dv_b[d] = vec4<f32>(0.0);
    }
    let group_size = params.heads / params.kv_heads;
    let first_row = tile.row;
    let end = segment.query_end;
    for (var h = 0u; h < group_size; h += 1u) {
        let head = kv_head * group_size + h;
        for (var first = first_row; first < end; first += 8u) {
            let own_row = min(first + lane % 8u, end - 1u);
            let query_start = query_at(own_row, head);
            let dout_start = out_at(own_row, head);
            let lses = broadcast_eight(lse[own_row * params.heads + head]);
            let deltas = broadcast_eight(delta[own_row * params.heads + head]);
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
                own_query[d] = load_qkv(query_start + d);
                let query_low = broadcast_low(own_query[d]);
                let query_high = broadcast_high(own_query[d]);
                low_a = dots(low_a, k_a[d], query_low);
                high_a = dots(high_a, k_a[d], query_high);
                low_b = dots(low_b, k_b[d], query_low);
                high_b = dots(high_b, k_b[d], query_high);
                own_dout[d] = load_dout(dout_start + d);
                let dout_low = broadcast_low(own_dout[d]);
                let dout_high = broadcast_high(own_dout[d]);
                dlow_a = dots(dlow_a, v_a[d], dout_low);
                dhigh_a = dots(dhigh_a, v_a[d], dout_high);
                dlow_b = dots(dlow_b, v_b[d], dout_low);
                dhigh_b = dots(dhigh_b, v_b[d], dout_high);
            }
            let t = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
            let u = t + vec4<u32>(4u);
            let until = vec4<u32>(end);
            let scale = params.scale;
            let key_a = vec4<u32>(keys.x);
            let key_b = vec4<u32>(keys.y);
            low_a = attention_weights(low_a * scale, lses[0], (t >= key_a) & (t < until));
            high_a = attention_weights(high_a * scale, lses[1], (u >= key_a) & (u < until));
            low_b = attention_weights(low_b * scale, lses[0], (t >= key_b) & (t < until));
            high_b = attention_weights(high_b * scale, lses[1], (u >= key_b) & (u < until));
            dlow_a = low_a * (dlow_a - deltas[0]);
            dhigh_a = high_a * (dhigh_a - deltas[1]);
            dlow_b = low_b * (dlow_b - deltas[0]);
            dhigh_b = high_b * (dhigh_b - deltas[1]);
            // unroll
            for (var d = 0u; d < WIDTH4; d += 1u) {
                let dout_low = broadcast_low(own_dout[d]);
                let dout_high = broadcast_high(own_dout[d]);
                dv_a[d] += dout_low * low_a + dout_high * high_a;
                dv_b[d] += dout_low * low_b + dout_high * high_b;
                let query_low = broadcast_low(own_query[d]);
                let query_high = broadcast_high(own_query[d]);
                dk_a[d] += query_low * dlow_a + query_high * dhigh_a;
                dk_b[d] += query_low * dlow_b + query_high * dhigh_b;
            }
        }
    }
    if (tile.row + thread < key_end) {
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            dqkv[key_start.x + d] = dk_a[d] * params.scale;
            dqkv[value_start.x + d] = dv_a[d];
        }
    }
    if (tile.row + thread + 16u < key_end) {
        // unroll
        for (var d = 0u; d < WIDTH4; d += 1u) {
            dqkv[key_start.y + d] = dk_b[d] * params.scale;
            dqkv[value_start.y + d] = dv_b[d];
        }
    }
}
