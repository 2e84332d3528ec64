// The last step of a split product: the sums of all parts of k, with an epilogue.
//
// Bindings: 0 params, 1 counts (live sizes, where used), 2 partials (read: parts, M, N), 4 out
// (written), then what the epilogue adds.
//
// Dispatch: workgroups of 64, a thread an output or four. Parts are added in their order, those past the
// live k left out; outputs past the live rows are not touched.
@group(0) @binding(2) var<storage, read> partials: array<Columns>;

@compute @workgroup_size(64)
fn matmul_total(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let m = live_from(params.m, params.m_count, params.start);
    let k = live_from(params.k, params.k_count, params.start);
    let item = linear_workgroup(group, groups) * 64u + index;
    let width = params.n / COLUMNS;
    if (item >= m * width) {
        return;
    }
    let parts = (k + params.part - 1u) / params.part;
    let outputs = params.m * width;
    var sum = Columns();
    for (var part = 0u; part < parts; part++) {
        sum += partials[part * outputs + item];
    }
    store(item / width, item % width * COLUMNS, sum);
}
