// Gradients of the keys and values of attention, as attention_dkv.wgsl computes them, through
// workgroup memory.
//
// Bindings: 0 params, 1 counts, 2 qkv (T, (H + 2G) D, read), 3 segments (read), 4 tiles (read),
// 5 dout (T, H D, read), 6 lse (T, H, read), 7 delta (T, H, read), 8 dqkv (T, (H + 2G) D, the key
// and value columns written).
//
// Dispatch: PARTS workgroups a tile of keys and key/value head, which own its keys and values (see
// lib/attention_tiled.wgsl). All own keys walk the same rows, for one query head after the other;
// rows before a key get weight 0. A block holds queries first, then the rows of `dout`, then the
// queries once more. Keys past the tile's end repeat its last key and are not written.
//
// Source: as attention_dkv.wgsl.
@group(0) @binding(5) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> lse: array<f32>;
@group(0) @binding(7) var<storage, read> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> dqkv: array<vec4<f32>>;

fn copy_values(first: u32, last: u32, column: u32, thread: u32) {
    // unroll
    for (var n = 0u; n < OWN_COPIES; n += 1u) {
        let i = thread + n * THREADS;
        if (i < OWN_SIZE) {
            let row = min(first + i / WIDTH4, last);
            own_second[i / WIDTH4][i % WIDTH4] = qkv[row * qkv_stride() + column + i % WIDTH4];
        }
    }
}

fn load_queries(first: u32, last: u32, head: u32, thread: u32) -> Held {
    var held: Held;
    // unroll
    for (var n = 0u; n < COPIES; n += 1u) {
        let i = min(thread + n * THREADS, BLOCK_SIZE - 1u);
        held[n] = qkv[query_at(min(first + i / WIDTH4, last), head) + i % WIDTH4];
    }
    return held;
}

fn load_douts(first: u32, last: u32, head: u32, thread: u32) -> Held {
    var held: Held;
    // unroll
    for (var n = 0u; n < COPIES; n += 1u) {
        let i = min(thread + n * THREADS, BLOCK_SIZE - 1u);
        held[n] = dout[out_at(min(first + i / WIDTH4, last), head) + i % WIDTH4];
    }
    return held;
}

@compute @workgroup_size(THREADS)
fn attention_dkv_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = linear_workgroup(workgroup, workgroups);
    let kv_head = index % params.kv_heads;
    let part = index / params.kv_heads;
    if (part / PARTS >= live(params.tiles, params.tiles_count)) {
        return;
    }
    let tile = tiles[part / PARTS];
    let segment = segments[tile.segment];
    let first_key = tile.row + part % PARTS * OWN;
    let end = min(first_key + OWN, tile_end(segment, tile.row));
    if (first_key >= end) {
        return;
    }
    let group = group_of(thread);
    let lane = lane_of(thread);
    let keys = vec4<u32>(first_key + group * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let group_size = params.heads / params.kv_heads;
    let first_head = kv_head * group_size;
    let last_row = segment.query_end - 1u;

    var held = load_queries(first_key, last_row, first_head, thread);
    copy_own(first_key, end - 1u, key_at(0u, kv_head), thread);
    copy_values(first_key, end - 1u, value_at(0u, kv_head), thread);
    var key_sums: Sums;
    var value_sums: Sums;
    for (var h = 0u; h < group_size; h += 1u) {
        let head = first_head + h;
        for (var first = first_key; first <= last_row; first += OTHER) {
            let rows = vec2<u32>(first + lane, first + lane + LANES);
            let at = min(rows, vec2<u32>(last_row)) * params.heads + head;
            let lses = vec2<f32>(lse[at.x], lse[at.y]);
            let deltas = vec2<f32>(delta[at.x], delta[at.y]);
            // The block before has been read.
            workgroupBarrier();
            store_block(held, thread);
            // The queries are there.
            workgroupBarrier();
            let held_douts = load_douts(first, last_row, head, thread);
            let products = own_products(group, lane);
            let sees_a = (keys <= vec4<u32>(rows.x)) & vec4<bool>(rows.x <= last_row);
            let sees_b = (keys <= vec4<u32>(rows.y)) & vec4<bool>(rows.y <= last_row);
            let scores_a = products[0] * params.scale;
            let scores_b = products[1] * params.scale;
            let weight_a = attention_weights(scores_a, vec4<f32>(lses.x), sees_a);
            let weight_b = attention_weights(scores_b, vec4<f32>(lses.y), sees_b);
            store_weights(group, lane, weight_a, weight_b);
            // The queries have been read.
            workgroupBarrier();
            store_block(held_douts, thread);
            // The rows of `dout` and the weights are there.
            workgroupBarrier();
            let dweights = second_products(group, lane);
            add_rows(&value_sums, group, lane);
            // They have been read.
            workgroupBarrier();
            store_block(held, thread);
            let dscore_a = weight_a * (dweights[0] - deltas.x);
            let dscore_b = weight_b * (dweights[1] - deltas.y);
            store_weights(group, lane, dscore_a, dscore_b);
            // The queries are there again, and the gradients of the scores.
            workgroupBarrier();
            let row_after = first + OTHER;
            let same_head = row_after <= last_row;
            let next_row = select(first_key, row_after, same_head);
            let next_head = select(min(h + 1u, group_size - 1u), h, same_head);
            held = load_queries(next_row, last_row, first_head + next_head, thread);
            add_rows(&key_sums, group, lane);
        }
    }
    // unroll
    for (var i = 0u; i < 4u; i += 1u) {
        if (keys[i] < end) {
            // unroll
            for (var c = 0u; c < COLUMNS; c += 1u) {
                let column = lane + c * LANES;
                if (column < WIDTH4) {
                    dqkv[key_at(keys[i], kv_head) + column] = key_sums[c][i] * params.scale;
                    dqkv[value_at(keys[i], kv_head) + column] = value_sums[c][i];
                }
            }
        }
    }
}
