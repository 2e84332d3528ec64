// Gradient of the queries of attention (see attention.wgsl), recomputed from the log-sum-exp.
//
//   p_j = exp(s_j - lse),  delta = dout . out,  ds_j = p_j (dout . v_j - delta)
//   dq = sum_j ds_j k_j / sqrt(D)
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, read), 6 dout (T, H D, read), 7 lse (T, H, read), 8 delta (T, H, written),
// 9 dqkv (T, (H + 2G) D, the query columns written).
//
// Dispatch: a workgroup of 32 threads a tile and query head, one row a thread. All threads of a
// workgroup walk the same keys; what a row does not see gets weight 0. Only rows of live tiles are
// written.
//
// Source: arXiv 2205.14135, appendix B.2 and algorithm 4.
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(5) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;
@group(0) @binding(9) var<storage, read_write> dqkv: array<vec4<f32>>;

@compute @workgroup_size(32)
fn attention_dq(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_workgroup(group, groups);
    let head = index % params.heads;
    if (index / params.heads >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[index / params.heads];
    let segment = segments[tile.segment];
    let end = tile_end(segment, tile.row);
    let row = tile.row + lane;
    if (row >= end) {
        return;
    }
    let kv_head = head / (params.heads / params.kv_heads);
    let seen = keys_before(segment, row + 1u);
    let keys = keys_before(segment, end);

    var query: array<vec4<f32>, WIDTH4>;
    var incoming: array<vec4<f32>, WIDTH4>;
    var sum: array<vec4<f32>, WIDTH4>;
    let query_start = query_at(row, head);
    let out_start = out_at(row, head);
    var row_delta = 0.0;
    for (var d = 0u; d < WIDTH4; d += 1u) {
        query[d] = qkv[query_start + d];
        incoming[d] = dout[out_start + d];
        row_delta = dot_after(row_delta, incoming[d], out[out_start + d]);
        sum[d] = vec4<f32>(0.0);
    }
    let row_lse = lse[row * params.heads + head];
    for (var first = 0u; first < keys; first += 4u) {
        let j = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
        let at = min(j, vec4<u32>(keys - 1u));
        let r0 = key_row(segment, at.x);
        let r1 = key_row(segment, at.y);
        let r2 = key_row(segment, at.z);
        let r3 = key_row(segment, at.w);
        let k0 = key_at(r0, kv_head);
        let k1 = key_at(r1, kv_head);
        let k2 = key_at(r2, kv_head);
        let k3 = key_at(r3, kv_head);
        let v0 = value_at(r0, kv_head);
        let v1 = value_at(r1, kv_head);
        let v2 = value_at(r2, kv_head);
        let v3 = value_at(r3, kv_head);
        var scores = vec4<f32>(0.0);
        var dweights = vec4<f32>(0.0);
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let keys4 = mat4x4<f32>(
                qkv[k0 + d], qkv[k1 + d], qkv[k2 + d], qkv[k3 + d],
            );
            scores = dots(scores, query[d], keys4);
            let values4 = mat4x4<f32>(
                qkv[v0 + d], qkv[v1 + d], qkv[v2 + d], qkv[v3 + d],
            );
            dweights = dots(dweights, incoming[d], values4);
        }
        let visible = j < vec4<u32>(seen);
        scores *= params.scale;
        let weights = attention_weights(scores, vec4<f32>(row_lse), visible);
        let dscores = weights * (dweights - row_delta);
        for (var d = 0u; d < WIDTH4; d += 1u) {
            sum[d] += (dscores.x * qkv[k0 + d] + dscores.y * qkv[k1 + d])
                + (dscores.z * qkv[k2 + d] + dscores.w * qkv[k3 + d]);
        }
    }
    for (var d = 0u; d < WIDTH4; d += 1u) {
        dqkv[query_start + d] = sum[d] * params.scale;
    }
    delta[row * params.heads + head] = row_delta;
}
