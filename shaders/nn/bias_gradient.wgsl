// Gradient of a bias: dbias[n] += sum over t of dy[t, n], in two passes of fixed order.
//
//   bias_gradient_chunks: reads dy (rows, N); writes partials (chunks, N), the sums over 32 rows
//   bias_gradient_total: reads partials; adds their sums to dbias (N)
//
// Bindings: 0 params, 1 counts (where the rows are live), 2 dy (an operand), 3 partials (written, then
// read), 4 dbias (added to).
//
// Dispatch: a thread a column or four, of one chunk; then SUM_LANES threads, of all. Rows past the live ones are not
// read.
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> partials: array<Columns>;
@group(0) @binding(4) var<storage, read_write> dbias: array<Columns>;

@compute @workgroup_size(64)
fn bias_gradient_chunks(
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
    var sum = Columns();
    let whole = end - (end - first) % 4u;
    // Four loads at a time: they wait for each other otherwise.
    for (var row = first; row < whole; row += 4u) {
        let at = row * width + column;
        sum += (load_dy(at) + load_dy(at + width))
            + (load_dy(at + 2u * width) + load_dy(at + 3u * width));
    }
    for (var row = whole; row < end; row++) {
        sum += load_dy(row * width + column);
    }
    partials[chunk * width + column] = sum;
}

@compute @workgroup_size(64)
fn bias_gradient_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let chunks = (live(params.rows, params.rows_count) + CHUNK_ROWS - 1u) / CHUNK_ROWS;
    let width = params.columns / COLUMNS;
    let column = linear_workgroup(group, groups) * SUM_COLUMNS + index % SUM_COLUMNS;
    let sum = sum_chunks(min(column, width - 1u), width, chunks, index);
    if (column < width && index < SUM_COLUMNS) {
        dbias[column] += sum;
    }
}
