// Attention of one token a sequence to a cache, as attention_decode.wgsl computes it, without
// barriers, which software drivers are slow at.
//
// Bindings: as attention_decode.wgsl.
//
// Dispatch: eight lanes a sequence and query head, eight of these a workgroup of 64. A lane takes
// every eighth key, four of them a step, with a maximum and sums of its own; the eight are merged
// at the end, by exchanges that stay within groups of eight lanes, so a subgroup needs 8 lanes or
// more. All lanes take part in the exchanges, those past the last row with nothing.
//
// Sources: as attention_decode.wgsl.
const LANES: u32 = 8u;
const STEP: u32 = 4u * LANES;

fn most_of_eight(own: f32) -> f32 {
    var most = own;
    for (var distance = 1u; distance < LANES; distance *= 2u) {
        most = max(most, subgroupShuffleXor(most, distance));
    }
    return most;
}

fn sum_of_eight(own: vec4<f32>) -> vec4<f32> {
    var sum = own;
    for (var distance = 1u; distance < LANES; distance *= 2u) {
        sum += subgroupShuffleXor(sum, distance);
    }
    return sum;
}

@compute @workgroup_size(64)
fn attention_decode_subgroup(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let lane = subgroup_lane % LANES;
    let items = live(params.rows, params.rows_count) * params.heads;
    let first_item = linear_workgroup(group, groups) * (64u / LANES);
    if (first_item >= items) {
        return;
    }
    let item = min(first_item + local / LANES, items - 1u);
    let mine = first_item + local / LANES < items;
    let row = item / params.heads;
    let head = item % params.heads;
    let kv_head = head / (params.heads / params.kv_heads);
    let sequence = sequences[row];
    let keys = select(0u, sequence.prefix_len + sequence.len, mine);
    var query: array<vec4<f32>, WIDTH4>;
    var sum: array<vec4<f32>, WIDTH4>;
    let query_start = query_at(row, head);
    for (var d = 0u; d < WIDTH4; d++) {
        query[d] = qkv[query_start + d];
        sum[d] = vec4<f32>(0.0);
    }
    var highest = LOWEST;
    var total = 0.0;
    for (var first = 0u; first < keys; first += STEP) {
        let j = vec4<u32>(first + lane) + vec4<u32>(0u, LANES, 2u * LANES, 3u * LANES);
        let at = min(j, vec4<u32>(keys - 1u));
        let k0 = key_at(sequence, at.x, kv_head);
        let k1 = key_at(sequence, at.y, kv_head);
        let k2 = key_at(sequence, at.z, kv_head);
        let k3 = key_at(sequence, at.w, kv_head);
        var scores = vec4<f32>(0.0);
        for (var d = 0u; d < WIDTH4; d++) {
            scores += vec4<f32>(
                dot(query[d], cache[k0 + d]), dot(query[d], cache[k1 + d]),
                dot(query[d], cache[k2 + d]), dot(query[d], cache[k3 + d]),
            );
        }
        let visible = j < vec4<u32>(keys);
        scores = select(vec4<f32>(LOWEST), scores * params.scale, visible);
        let higher = max(highest, max(max(scores.x, scores.y), max(scores.z, scores.w)));
        let shrink = exp(highest - higher);
        let weights = select(vec4<f32>(0.0), exp(scores - higher), visible);
        highest = higher;
        total = total * shrink + dot(weights, vec4<f32>(1.0));
        let values = params.kv_heads * WIDTH4;
        for (var d = 0u; d < WIDTH4; d++) {
            let v = values + d;
            sum[d] = sum[d] * shrink
                + (weights.x * cache[k0 + v] + weights.y * cache[k1 + v])
                + (weights.z * cache[k2 + v] + weights.w * cache[k3 + v]);
        }
    }
    // A lane without a key has no weight.
    let factor = select(0.0, exp(highest - most_of_eight(highest)), total > 0.0);
    let all = sum_of_eight(vec4<f32>(total * factor)).x;
    let out_start = out_at(row, head);
    for (var d = 0u; d < WIDTH4; d++) {
        let values = sum_of_eight(sum[d] * factor);
        if (mine && lane == d % LANES) {
            out[out_start + d] = values / all;
        }
    }
}
