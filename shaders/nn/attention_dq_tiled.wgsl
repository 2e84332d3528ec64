// Gradient of the queries of attention, as attention_dq.wgsl computes it, through workgroup memory.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 out (T, H D, read), 6 dout (T, H D, read), 7 lse (T, H, read), 8 delta (T, H, written),
// 9 dqkv (T, (H + 2G) D, the query columns written).
//
// Dispatch: as attention_tiled.wgsl. The own rows are those of the queries and of `dout`; a block
// holds values first, then the same keys.
//
// Source: as attention_dq.wgsl.
@group(0) @binding(5) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> lse: array<f32>;
@group(0) @binding(8) var<storage, read_write> delta: array<f32>;
@group(0) @binding(9) var<storage, read_write> dqkv: array<vec4<f32>>;

// `delta` of the own rows.
var<workgroup> own_delta: array<f32, OWN>;

fn copy_douts(first: u32, last: u32, head: u32, thread: u32) {
    // unroll
    for (var n = 0u; n < OWN_COPIES; n += 1u) {
        let i = thread + n * THREADS;
        if (i < OWN_SIZE) {
            let start = out_at(min(first + i / WIDTH4, last), head);
            own_second[i / WIDTH4][i % WIDTH4] = dout[start + i % WIDTH4];
        }
    }
}

fn delta_of(row: u32, head: u32) -> f32 {
    let start = out_at(row, head);
    var sum = 0.0;
    for (var first = start; first < start + WIDTH4; first += STEP) {
        // unroll
        for (var i = 0u; i < STEP; i += 1u) {
            sum = dot_after(sum, dout[first + i], out[first + i]);
        }
    }
    return sum;
}

@compute @workgroup_size(THREADS)
fn attention_dq_tiled(
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
    let held_rows = min(rows, vec4<u32>(end - 1u));
    let seen = held_rows + 1u - segment.start + segment.prefix_len;
    let at = held_rows * params.heads + head;
    let lses = vec4<f32>(lse[at.x], lse[at.y], lse[at.z], lse[at.w]);

    var held = load_keys(segment, 0u, keys - 1u, value_column, thread);
    copy_own(first_row, end - 1u, query_at(0u, head), thread);
    copy_douts(first_row, end - 1u, head, thread);
    for (var i = thread; i < OWN; i += THREADS) {
        let row = min(first_row + i, end - 1u);
        let row_delta = delta_of(row, head);
        own_delta[i] = row_delta;
        if (first_row + i < end) {
            delta[row * params.heads + head] = row_delta;
        }
    }
    // The own rows are there.
    workgroupBarrier();
    let own_row = group * 4u;
    let deltas = vec4<f32>(
        own_delta[own_row], own_delta[own_row + 1u],
        own_delta[own_row + 2u], own_delta[own_row + 3u],
    );
    var sums: Sums;
    for (var first = 0u; first < keys; first += OTHER) {
        // The block before has been read.
        workgroupBarrier();
        store_block(held, thread);
        // The values are there.
        workgroupBarrier();
        held = load_keys(segment, first, keys - 1u, key_column, thread);
        let dweights = second_products(group, lane);
        // The values have been read.
        workgroupBarrier();
        store_block(held, thread);
        // The keys are there.
        workgroupBarrier();
        held = load_keys(segment, first + OTHER, keys - 1u, value_column, thread);
        let products = own_products(group, lane);
        let sees_a = vec4<u32>(first + lane) < seen;
        let sees_b = vec4<u32>(first + lane + LANES) < seen;
        let weight_a = attention_weights(products[0] * params.scale, lses, sees_a);
        let weight_b = attention_weights(products[1] * params.scale, lses, sees_b);
        let dscore_a = weight_a * (dweights[0] - deltas);
        let dscore_b = weight_b * (dweights[1] - deltas);
        store_weights(group, lane, dscore_a, dscore_b);
        // The weights are there.
        workgroupBarrier();
        add_rows(&sums, group, lane);
    }
    // unroll
    for (var i = 0u; i < 4u; i += 1u) {
        if (rows[i] < end) {
            // unroll
            for (var c = 0u; c < COLUMNS; c += 1u) {
                let column = lane + c * LANES;
                if (column < WIDTH4) {
                    dqkv[query_at(rows[i], head) + column] = sums[c][i] * params.scale;
                }
            }
        }
    }
}
