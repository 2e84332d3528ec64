// Causal grouped-query attention over a packed run with shared prefixes, forward.
//
//   s_j = q . k_j / sqrt(D),  lse = ln sum_j exp(s_j),  out = sum_j exp(s_j - lse) v_j
//
// A row sees the rows of its segment's prefix and those of its segment up to itself. The softmax is
// computed online: a running maximum and sum, four keys a step.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, written), 6 lse (T, H, written).
//
// Dispatch: a workgroup of 32 threads a tile and query head, one row a thread. All threads of a
// workgroup walk the same keys; what a row does not see gets weight 0. Only rows of live tiles are
// written.
//
// Sources: attention (arXiv 1706.03762, section 3.2.1), grouped queries (arXiv 2305.13245, section
// 2.2), online softmax (arXiv 1805.02867, section 3), shared prefixes (arXiv 2410.20305).
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> segments: array<Segment>;
@group(0) @binding(4) var<storage, read> tiles: array<Tile>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(32)
fn attention(
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
    var sum: array<vec4<f32>, WIDTH4>;
    let query_start = query_at(row, head);
    for (var d = 0u; d < WIDTH4; d += 1u) {
        query[d] = qkv[query_start + d];
        sum[d] = vec4<f32>(0.0);
    }
    var highest = LOWEST;
    var total = 0.0;
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
        var scores = vec4<f32>(0.0);
        for (var d = 0u; d < WIDTH4; d += 1u) {
            let keys4 = mat4x4<f32>(
                qkv[k0 + d], qkv[k1 + d], qkv[k2 + d], qkv[k3 + d],
            );
            scores = dots(scores, query[d], keys4);
        }
        let visible = j < vec4<u32>(seen);
        scores = select(vec4<f32>(LOWEST), scores * params.scale, visible);
        let higher = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
        let shrink = exp(highest - higher);
        let weights = select(vec4<f32>(0.0), exp(scores - higher), visible);
        highest = higher;
        total = total * shrink + dot(weights, vec4<f32>(1.0));
        let v0 = value_at(r0, kv_head);
        let v1 = value_at(r1, kv_head);
        let v2 = value_at(r2, kv_head);
        let v3 = value_at(r3, kv_head);
        for (var d = 0u; d < WIDTH4; d += 1u) {
            sum[d] = sum[d] * shrink
                + (weights.x * qkv[v0 + d] + weights.y * qkv[v1 + d])
                + (weights.z * qkv[v2 + d] + weights.w * qkv[v3 + d]);
        }
    }
    let out_start = out_at(row, head);
    for (var d = 0u; d < WIDTH4; d += 1u) {
        out[out_start + d] = sum[d] / total;
    }
    lse[row * params.heads + head] = highest + log(total);
}
