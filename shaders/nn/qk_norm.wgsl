// RMSNorm of each query head and each key head over its D values, as Qwen3 has it (Yang et al.
// 2025, arXiv 2505.09388, section 2); value heads pass through. Of one head, with the weight of its
// kind:
//   rstd = 1 / sqrt(sum(x^2) / D + eps), n = x rstd, y = n weight
//   g = dy weight, dx = rstd (g - n sum(g n) / D), dweight = sum over rows and heads of dy n
// Zhang and Sennrich 2019, arXiv 1910.07467, equation 4.
//
// Bindings: x, y, dy, dqkv (rows, (H + 2G) D): query heads, key heads, value heads; query_weight,
// key_weight, dquery_weight, dkey_weight (D); partials (chunks, D): those of query heads first.
//
//   qk_norm_forward: reads x, both weights; writes y
//   qk_norm_chunks: reads x, dy; writes partials, the sums of dy n over 256 heads of one kind
//   qk_norm_total: reads partials; adds their sums to dquery_weight and dkey_weight
//   qk_norm_backward: reads x, both weights, dqkv; writes dqkv
//
// Dispatch: forward and backward a thread a head; chunks a workgroup of 64 a chunk; total a thread
// four columns, of the query weight first. Rows past the live ones are not touched.
struct Params {
    rows: u32,
    rows_count: u32,
    heads: u32,
    kv_heads: u32,
    width: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> y: array<Columns>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<Columns>;
@group(0) @binding(8) var<storage, read_write> partials: array<Columns>;
@group(0) @binding(9) var<storage, read_write> dquery_weight: array<Columns>;
@group(0) @binding(10) var<storage, read_write> dkey_weight: array<Columns>;

const CHUNK_HEADS: u32 = 256u;

var<workgroup> scales: array<f32, 256>;
var<workgroup> sums: array<Columns, 64>;

fn live_rows() -> u32 {
    return live(params.rows, params.rows_count);
}

fn chunks_of(heads: u32) -> u32 {
    return (heads + CHUNK_HEADS - 1u) / CHUNK_HEADS;
}

// Where a head of a row begins.
fn start_of(row: u32, head: u32) -> u32 {
    return (row * (params.heads + 2u * params.kv_heads) + head) * (params.width / COLUMNS);
}

fn weight_of(head: u32, column: u32) -> Columns {
    if (head < params.heads) {
        return load_query_weight(column);
    }
    return load_key_weight(column);
}

// rstd of the head that begins at `start`.
fn scale_of(start: u32) -> f32 {
    let columns = params.width / COLUMNS;
    var square = Columns();
    for (var c = 0u; c < columns; c++) {
        let value = load_x(start + c);
        square += value * value;
    }
    return 1.0 / sqrt(total(square) / f32(params.width) + params.eps);
}

@compute @workgroup_size(64)
fn qk_norm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let heads = params.heads + 2u * params.kv_heads;
    let item = linear_workgroup(group, groups) * 64u + index;
    if (item >= live_rows() * heads) {
        return;
    }
    let head = item % heads;
    let start = start_of(item / heads, head);
    let columns = params.width / COLUMNS;
    if (head >= params.heads + params.kv_heads) {
        for (var c = 0u; c < columns; c++) {
            y[start + c] = load_x(start + c);
        }
        return;
    }
    let scale = scale_of(start);
    for (var c = 0u; c < columns; c++) {
        y[start + c] = load_x(start + c) * scale * weight_of(head, c);
    }
}

@compute @workgroup_size(64)
fn qk_norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let heads = params.heads + params.kv_heads;
    let item = linear_workgroup(group, groups) * 64u + index;
    if (item >= live_rows() * heads) {
        return;
    }
    let head = item % heads;
    let start = start_of(item / heads, head);
    let columns = params.width / COLUMNS;
    let scale = scale_of(start);
    var product = Columns();
    for (var c = 0u; c < columns; c++) {
        product += load_dqkv(start + c) * weight_of(head, c) * (load_x(start + c) * scale);
    }
    let mean_product = total(product) / f32(params.width);
    for (var c = 0u; c < columns; c++) {
        let g = load_dqkv(start + c) * weight_of(head, c);
        dqkv[start + c] = scale * (g - load_x(start + c) * scale * mean_product);
    }
}

@compute @workgroup_size(64)
fn qk_norm_chunks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let chunk = linear_workgroup(group, groups);
    let query_chunks = chunks_of(params.rows * params.heads);
    let of_query = chunk < query_chunks;
    let heads = select(params.kv_heads, params.heads, of_query);
    let first_head = select(params.heads, 0u, of_query);
    let first = select(chunk - query_chunks, chunk, of_query) * CHUNK_HEADS;
    let end = min(first + CHUNK_HEADS, live_rows() * heads);
    if (first >= end) {
        return;
    }
    for (var i = first + index; i < end; i += 64u) {
        scales[i - first] = scale_of(start_of(i / heads, first_head + i % heads));
    }
    // Every head's scale is there.
    workgroupBarrier();
    // As many heads at a time as there are threads for; some threads may be left over.
    let columns = params.width / COLUMNS;
    let parts = 64u / columns;
    let column = index % columns;
    var sum = Columns();
    if (index < parts * columns) {
        for (var i = first + index / columns; i < end; i += parts) {
            let at = start_of(i / heads, first_head + i % heads) + column;
            sum += load_dy(at) * (load_x(at) * scales[i - first]);
        }
    }
    sums[index] = sum;
    // Every part's sum is there.
    workgroupBarrier();
    if (index < columns) {
        for (var part = 1u; part < parts; part++) {
            sum += sums[part * columns + index];
        }
        partials[chunk * columns + index] = sum;
    }
}

@compute @workgroup_size(64)
fn qk_norm_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let columns = params.width / COLUMNS;
    let rows = live_rows();
    let item = linear_workgroup(group, groups) * 64u + index;
    if (item < columns) {
        let chunks = chunks_of(rows * params.heads);
        dquery_weight[item] += sum_range(item, columns, 0u, chunks);
    } else if (item < 2u * columns) {
        let column = item - columns;
        let key_start = chunks_of(params.rows * params.heads) * columns;
        let chunks = chunks_of(rows * params.kv_heads);
        dkey_weight[column] += sum_range(key_start + column, columns, 0u, chunks);
    }
}
