// out[i] = value, for i < count. A kernel, and no buffer command, so that it fits into a pass.
//
// Bindings: 0 params, 2 out (written, as bits).
//
// Dispatch: workgroups of 256, each thread four times an element or four.
struct Params {
    count: u32,
    value: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> out: array<ColumnBits>;

const THREADS: u32 = 256u;
const ITEMS: u32 = 4u;

@compute @workgroup_size(256)
fn fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = linear_workgroup(group, groups) * (THREADS * ITEMS) + index;
    let end = params.count / COLUMNS;
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            out[at] = ColumnBits(params.value);
        }
    }
}
