// LayerNorm and RMSNorm with a subgroup a row, without workgroup memory or barriers; formulas and
// bindings are in lib/norm.
//
//   norm_forward: writes y and the statistics of each row
//   norm_backward: writes dx, or adds to it (ACCUMULATE)
//
// Dispatch: one workgroup of 128 for ROWS rows, which its subgroups share whatever their size. A
// subgroup without a row of its own repeats the last one and writes nothing, so that all control
// flow around the sums is uniform. Rows past the live ones are not touched.
const THREADS: u32 = 128u;

fn row_sum(value: Sums, lane: u32) -> Sums {
    return subgroupAdd(value);
}

@compute @workgroup_size(128)
fn norm_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = live(params.rows, params.rows_count);
    let first = linear_workgroup(group, groups) * ROWS;
    if (first >= rows) {
        return;
    }
    let rounds = (ROWS * lanes + THREADS - 1u) / THREADS;
    for (var round = 0u; round < rounds; round++) {
        let slot = round * (THREADS / lanes) + index / lanes;
        let row = min(first + slot, rows - 1u);
        normalise_row(row, lane, lanes, slot < ROWS && first + slot < rows);
    }
}

@compute @workgroup_size(128)
fn norm_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let rows = live(params.rows, params.rows_count);
    let first = linear_workgroup(group, groups) * ROWS;
    if (first >= rows) {
        return;
    }
    let rounds = (ROWS * lanes + THREADS - 1u) / THREADS;
    for (var round = 0u; round < rounds; round++) {
        let slot = round * (THREADS / lanes) + index / lanes;
        let row = min(first + slot, rows - 1u);
        row_gradient(row, lane, lanes, slot < ROWS && first + slot < rows);
    }
}
