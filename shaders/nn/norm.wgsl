// LayerNorm and RMSNorm, forward and backward; formulas and bindings are in lib/norm.
//
//   norm_forward: writes y and the statistics of each row
//   norm_backward: writes dx, or adds to it (ACCUMULATE)
//   norm_chunks: writes partials, the sums of the parameters' gradients over 64 rows
//   norm_total: adds the sums of partials to the parameters' gradients
//
// Dispatch: the first two one workgroup of 64 a row, sums through workgroup memory; the others a
// thread a column or four, of one chunk or of all. Rows past the live ones are not touched.
const LANES: u32 = 64u;

var<workgroup> lane_sums: array<Sums, 64>;
var<workgroup> eighths: array<Sums, 8>;

// The sum over the workgroup. A second call may start while others still read `eighths`: it
// writes there only after its own first barrier.
fn row_sum(value: Sums, lane: u32) -> Sums {
    lane_sums[lane] = value;
    // Every lane's value is there.
    workgroupBarrier();
    if (lane < 8u) {
        var part = Sums();
        for (var i = 0u; i < 8u; i++) {
            part += lane_sums[lane * 8u + i];
        }
        eighths[lane] = part;
    }
    // The eight sums are there, and `lane_sums` has been read.
    workgroupBarrier();
    var sum = Sums();
    for (var i = 0u; i < 8u; i++) {
        sum += eighths[i];
    }
    return sum;
}

@compute @workgroup_size(64)
fn norm_forward(
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
fn norm_backward(
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
fn norm_chunks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let rows = live(params.rows, params.rows_count);
    let width = params.columns / COLUMNS;
    let item = linear_workgroup(group, groups) * 64u + index;
    let chunk = item / width;
    let first = chunk * CHUNK_ROWS;
    if (first >= rows) {
        return;
    }
    chunk_gradient(chunk, vec2<u32>(first, min(first + CHUNK_ROWS, rows)), item % width);
}

@compute @workgroup_size(64)
fn norm_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let chunks = (live(params.rows, params.rows_count) + CHUNK_ROWS - 1u) / CHUNK_ROWS;
    let width = params.columns / COLUMNS;
    let column = linear_workgroup(group, groups) * SUM_COLUMNS + index % SUM_COLUMNS;
    let write = column < width && index < SUM_COLUMNS;
    total_gradient(chunks, min(column, width - 1u), index, write);
}
