// Gradients of the keys and values of attention, as attention_dkv.wgsl computes them, for software
// drivers, where a broadcast inside a subgroup is cheaper than a load that all lanes share.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 dout (T, H D, read), 6 lse (T, H, read), 7 delta (T, H, read), 8 dqkv (T, (H + 2G) D, the key
// and value columns written).
//
// Dispatch: a workgroup of 32 threads a tile of keys and key/value head, one key a thread. Rows
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

@compute @workgroup_size(32)
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
    let key = min(tile.row + thread, key_end - 1u);
    var k: array<vec4<f32>, WIDTH4>;
    var v: array<vec4<f32>, WIDTH4>;
    var dk: array<vec4<f32>, WIDTH4>;
    var dv: array<vec4<f32>, WIDTH4>;
    var own_query: array<vec4<f32>, WIDTH4>;
    var own_dout: array<vec4<f32>, WIDTH4>;
    let key_start = key_at(key, kv_head);
    let value_start = value_at(key, kv_head);
    for (var d = 0u; d < WIDTH4; d += 1u) {
        k[d] = load_qkv(key_start + d);
        v[d] = load_qkv(value_start + d);
        dk[d] = vec4<f32>(0.0);
        dv[d] = vec4<f32>(0.0);
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
            let own_lse = lse[own_row * params.heads + head];
            let own_delta = delta[own_row * params.heads + head];
            var low = vec4<f32>(0.0);
            var high = vec4<f32>(0.0);
            var dlow = vec4<f32>(0.0);
            var dhigh = vec4<f32>(0.0);
            for (var d = 0u; d < WIDTH4; d += 1u) {
                let q = load_qkv(query_start + d);
                let o = load_dout(dout_start + d);
                own_query[d] = q;
                own_dout[d] = o;
                low = dots(low, k[d], broadcast_low(q));
                high = dots(high, k[d], broadcast_high(q));
                dlow = dots(dlow, v[d], broadcast_low(o));
                dhigh = dots(dhigh, v[d], broadcast_high(o));
            }
            let t = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
            let u = t + vec4<u32>(4u);
            let since = vec4<u32>(key);
            let until = vec4<u32>(end);
            let lses = broadcast_eight(own_lse);
            let deltas = broadcast_eight(own_delta);
            let zero = vec4<f32>(0.0);
            low = select(
                zero, exp(min(low * params.scale - lses[0], zero)), (t >= since) & (t < until),
            );
            high = select(
                zero, exp(min(high * params.scale - lses[1], zero)), (u >= since) & (u < until),
            );
            dlow = low * (dlow - deltas[0]);
            dhigh = high * (dhigh - deltas[1]);
            for (var d = 0u; d < WIDTH4; d += 1u) {
                dv[d] += broadcast_low(own_dout[d]) * low + broadcast_high(own_dout[d]) * high;
                dk[d] += broadcast_low(own_query[d]) * dlow + broadcast_high(own_query[d]) * dhigh;
            }
        }
    }
    if (tile.row + thread >= key_end) {
        return;
    }
    for (var d = 0u; d < WIDTH4; d += 1u) {
        dqkv[key_start + d] = dk[d] * params.scale;
        dqkv[value_start + d] = dv[d];
    }
}
