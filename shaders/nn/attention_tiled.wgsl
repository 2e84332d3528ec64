// Causal grouped-query attention, forward, as attention.wgsl computes it, through workgroup memory:
// for GPUs, which are quick at barriers and slow at memory.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, written), 6 lse (T, H, written).
//
// Dispatch: PARTS workgroups a tile and query head, which own its rows (see
// lib/attention_tiled.wgsl). All own rows walk the same keys; what a row does not see gets weight 0.
// Rows past the tile's end repeat its last row and are not written.
//
// The softmax is computed online, a block of keys a step: the rows' maxima over all lanes go
// through workgroup memory, the sums stay apart by lane until the end.
//
// Sources: as attention.wgsl.
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

// What each lane has found of each group's rows.
var<workgroup> by_lane: array<array<vec4<f32>, GROUPS>, LANES>;

fn highest_of_lanes(group: u32) -> vec4<f32> {
    var highest = vec4<f32>(LOWEST);
    // unroll
    for (var lane = 0u; lane < LANES; lane += 1u) {
        highest = max(highest, by_lane[lane][slot(group, lane)]);
    }
    return highest;
}

fn sum_of_lanes(group: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var lane = 0u; lane < LANES; lane += 1u) {
        sum += by_lane[lane][slot(group, lane)];
    }
    return sum;
}

fn shrink_sums(sums: ptr<function, Sums>, by: vec4<f32>) {
    // unroll
    for (var c = 0u; c < COLUMNS; c += 1u) {
        let old = (*sums)[c];
        (*sums)[c] = mat4x4<f32>(old[0] * by.x, old[1] * by.y, old[2] * by.z, old[3] * by.w);
    }
}

@compute @workgroup_size(THREADS)
fn attention_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = linear_workgroup(workgroup, workgroups);
    let head = index % params.heads;
    let part = index / params.heads;
    if (part / PARTS >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[part / PARTS];
    let segment = segments[tile.segment];
    let first_row = tile.row + part % PARTS * OWN;
    let end = min(first_row + OWN, tile_end(segment, tile.row));
    if (first_row >= end) {
        return;
    }
    let kv_head = head / (params.heads / params.kv_heads);
    let key_column = key_at(0u, kv_head);
    let value_column = value_at(0u, kv_head);
    let keys = keys_before(segment, end);
    let group = group_of(thread);
    let lane = lane_of(thread);
    let rows = vec4<u32>(first_row + group * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let seen = min(rows, vec4<u32>(end - 1u)) + 1u - segment.start + segment.prefix_len;

    copy_own(first_row, end - 1u, query_at(0u, head), thread);
    var held = load_keys(segment, 0u, keys - 1u, key_column, thread);
    var sums: Sums;
    var highest = vec4<f32>(LOWEST);
    var total = vec4<f32>(0.0);
    for (var first = 0u; first < keys; first += OTHER) {
        // The block before has been read.
        workgroupBarrier();
        store_block(held, thread);
        // The keys are there.
        workgroupBarrier();
        held = load_keys(segment, first, keys - 1u, value_column, thread);
        let products = own_products(group, lane);
        let sees_a = vec4<u32>(first + lane) < seen;
        let sees_b = vec4<u32>(first + lane + LANES) < seen;
        let a = select(vec4<f32>(LOWEST), products[0] * params.scale, sees_a);
        let b = select(vec4<f32>(LOWEST), products[1] * params.scale, sees_b);
        by_lane[lane][slot(group, lane)] = max(a, b);
        // The keys have been read, and the lanes' maxima are there.
        workgroupBarrier();
        store_block(held, thread);
        held = load_keys(segment, first + OTHER, keys - 1u, key_column, thread);
        let higher = max(highest, highest_of_lanes(group));
        let shrink = exp(highest - higher);
        let weight_a = select(vec4<f32>(0.0), exp(a - higher), sees_a);
        let weight_b = select(vec4<f32>(0.0), exp(b - higher), sees_b);
        highest = higher;
        total = total * shrink + (weight_a + weight_b);
        store_weights(group, lane, weight_a, weight_b);
        // The values and weights are there.
        workgroupBarrier();
        shrink_sums(&sums, shrink);
        add_rows(&sums, group, lane);
    }
    by_lane[lane][slot(group, lane)] = total;
    // The lanes' sums are there.
    workgroupBarrier();
    total = sum_of_lanes(group);
    // unroll
    for (var i = 0u; i < 4u; i += 1u) {
        if (rows[i] < end) {
            // unroll
            for (var c = 0u; c < COLUMNS; c += 1u) {
                let column = lane + c * LANES;
                if (column < WIDTH4) {
                    out[out_at(rows[i], head) + column] = sums[c][i] / total[i];
                }
            }
            if (lane == 0u) {
                lse[rows[i] * params.heads + head] = highest[i] + log(total[i]);
            }
        }
    }
}
