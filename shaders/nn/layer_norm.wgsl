// LayerNorm, forward and backward; formulas and the first bindings are in lib/layer_norm.wgsl.
//
//   layer_norm_forward: reads x, weight, bias; writes y, mean, rstd
//   layer_norm_backward: reads x, weight, mean, rstd, dy; writes dx, or adds to it (ACCUMULATE)
//   layer_norm_chunks: reads x, mean, rstd, dy; writes partials (chunks, 2, C), the sums over 64
//     rows of dy n and of dy
//   layer_norm_total: reads partials; adds their sums to dweight (C) and dbias (C)
//
// Dispatch: the first two one workgroup of 64 a row, sums through workgroup memory; the others a
// thread a column or four, of one chunk or of all. Rows past the live ones are not touched.
@group(0) @binding(12) var<storage, read_write> partials: array<Columns>;
@group(0) @binding(13) var<storage, read_write> dweight: array<Columns>;
@group(0) @binding(14) var<storage, read_write> dbias: array<Columns>;

const LANES: u32 = 64u;

var<workgroup> lane_sums: array<vec2<f32>, 64>;
var<workgroup> eighths: array<vec2<f32>, 8>;

// The sum over the workgroup. A second call may start while others still read `eighths`: it
// writes there only after its own first barrier.
fn row_sum(value: vec2<f32>, lane: u32) -> vec2<f32> {
    lane_sums[lane] = value;
    // Every lane's value is there.
    workgroupBarrier();
    if (lane < 8u) {
        var part = vec2<f32>();
        for (var i = 0u; i < 8u; i++) {
            part += lane_sums[lane * 8u + i];
        }
        eighths[lane] = part;
    }
    // The eight sums are there, and `lane_sums` has been read.
    workgroupBarrier();
    var sum = vec2<f32>();
    for (var i = 0u; i < 8u; i++) {
        sum += eighths[i];
    }
    return sum;
}

@compute @workgroup_size(64)
fn layer_norm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(group, groups);
    if (row >= live(params.rows, params.rows_count)) {
        return;
    }
    normalise_row(row, lane, LANES, true);
}

@compute @workgroup_size(64)
fn layer_norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = linear_workgroup(group, groups);
    if (row >= live(params.rows, params.rows_count)) {
        return;
    }
    row_gradient(row, lane, LANES, true);
}

@compute @workgroup_size(64)
fn layer_norm_chunks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let rows = live(params.rows, params.rows_count);
    let width = params.columns / COLUMNS;
    let item = linear_workgroup(group, groups) * 64u + index;
    let chunk = item / width;
    let column = item % width;
    let first = chunk * CHUNK_ROWS;
    if (first >= rows) {
        return;
    }
    let end = min(first + CHUNK_ROWS, rows);
    var by_weight = Columns();
    var by_bias = Columns();
    for (var row = first; row < end; row++) {
        let at = row * width + column;
        let gradient = dy[at];
        by_weight += gradient * ((x[at] - mean[row]) * rstd[row]);
        by_bias += gradient;
    }
    partials[2u * chunk * width + column] = by_weight;
    partials[(2u * chunk + 1u) * width + column] = by_bias;
}

@compute @workgroup_size(64)
fn layer_norm_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let chunks = (live(params.rows, params.rows_count) + CHUNK_ROWS - 1u) / CHUNK_ROWS;
    let width = params.columns / COLUMNS;
    let column = linear_workgroup(group, groups) * 64u + index;
    if (column >= width) {
        return;
    }
    dweight[column] += sum_chunks(column, 2u * width, chunks);
    dbias[column] += sum_chunks(width + column, 2u * width, chunks);
}
