// Gradients of the keys and values of attention (see attention.wgsl).
//
//   p_t = exp(s_t - lse_t),  ds_t = p_t (dout_t . v - delta_t)
//   dv = sum_t p_t dout_t,  dk = sum_t ds_t q_t / sqrt(D)
//
// over the query heads that share the key/value head, in order, and the rows t that see the key, in
// order: row j's key is seen by exactly the rows [j, query_end) of its segment.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 dout (T, H D, read), 6 lse (T, H, read), 7 delta (T, H, read), 8 dqkv (T, (H + 2G) D, the key
// and value columns written).
//
// Dispatch: a workgroup of 32 threads a tile of keys and key/value head, one key a thread. All
// threads of a workgroup walk the same rows; rows before a key get weight 0. Only rows of live
// tiles are written.
//
// Source: arXiv 2205.14135, appendix B.2 and algorithm 4.
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> lse: array<f32>;
@group(0) @binding(7) var<storage, read> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<f32>>;

@compute @workgroup_size(32)
fn attention_dkv(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_workgroup(group, groups);
    let kv_head = index % params.kv_heads;
    if (index / params.kv_heads >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[index / params.kv_heads];
    let segment = segments[tile.segment];
    let key = tile.row + lane;
    if (key >= tile_end(segment, tile.row)) {
        return;
    }
    var k: array<vec4<f32>, WIDTH4>;
    var v: array<vec4<f32>, WIDTH4>;
    var dk: array<vec4<f32>, WIDTH4>;
    var dv: array<vec4<f32>, WIDTH4>;
    let key_start = key_at(key, kv_head);
    let value_start = value_at(key, kv_head);
    for (var d = 0u; d < WIDTH4; d += 1u) {
        k[d] = qkv[key_start + d];
        v[d] = qkv[value_start + d];
        dk[d] = vec4<f32>(0.0);
        dv[d] = vec4<f32>(0.0);
    }
    let group_size = params.heads / params.kv_heads;
    let first_row = tile.row;
    let last_row = segment.query_end - 1u;
    for (var h = 0u; h < group_size; h += 1u) {
        let head = kv_head * group_size + h;
        for (var first = first_row; first <= last_row; first += 4u) {
            let t = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
            let at = min(t, vec4<u32>(last_row));
            let q0 = query_at(at.x, head);
            let q1 = query_at(at.y, head);
            let q2 = query_at(at.z, head);
            let q3 = query_at(at.w, head);
            let o0 = out_at(at.x, head);
            let o1 = out_at(at.y, head);
            let o2 = out_at(at.z, head);
            let o3 = out_at(at.w, head);
            var scores = vec4<f32>(0.0);
            var dweights = vec4<f32>(0.0);
            for (var d = 0u; d < WIDTH4; d += 1u) {
                let rows4 = mat4x4<f32>(
                    qkv[q0 + d], qkv[q1 + d], qkv[q2 + d], qkv[q3 + d],
                );
                scores = dots(scores, k[d], rows4);
                let douts4 = mat4x4<f32>(
                    dout[o0 + d], dout[o1 + d], dout[o2 + d], dout[o3 + d],
                );
                dweights = dots(dweights, v[d], douts4);
            }
            let row = at * params.heads + head;
            let lses = vec4<f32>(lse[row.x], lse[row.y], lse[row.z], lse[row.w]);
            let deltas = vec4<f32>(delta[row.x], delta[row.y], delta[row.z], delta[row.w]);
            let visible = (t >= vec4<u32>(key)) & (t <= vec4<u32>(last_row));
            scores *= params.scale;
            let weights = attention_weights(scores, lses, visible);
            let dscores = weights * (dweights - deltas);
            for (var d = 0u; d < WIDTH4; d += 1u) {
                dv[d] += (weights.x * dout[o0 + d] + weights.y * dout[o1 + d])
                    + (weights.z * dout[o2 + d] + weights.w * dout[o3 + d]);
                dk[d] += (dscores.x * qkv[q0 + d] + dscores.y * qkv[q1 + d])
                    + (dscores.z * qkv[q2 + d] + dscores.w * qkv[q3 + d]);
            }
        }
    }
    for (var d = 0u; d < WIDTH4; d += 1u) {
        dqkv[key_start + d] = dk[d] * params.scale;
        dqkv[value_start + d] = dv[d];
    }
}
