// out[t, c] = 0 for every live row t of a tensor (T, C).
//
// Bindings: 0 params, 1 counts (where live), 2 out (T, C; written).
//
// Dispatch: workgroups of 256 threads, each thread four elements 256 apart. Rows past the live
// number are not touched.
struct Params {
    rows: u32,
    rows_count: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn zero_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let len = live(params.rows, params.rows_count) * params.width;
    let first = linear_workgroup(group, groups) * 1024u;
    if (first >= len) {
        return;
    }
    for (var turn = 0u; turn < 4u; turn++) {
        let i = first + turn * 256u + local;
        if (i < len) {
            out[i] = 0.0;
        }
    }
}
