// GELU in its tanh form, element by element; the formula is in lib/gelu.wgsl.
//
//   gelu_forward: y = gelu(x); bindings: 2 x (read), 3 y (written)
//   gelu_backward: dx = dy gelu'(x); bindings: 2 x (read), 4 dy (read), 5 dx (written)
//
// All are (rows, C); what is read are operands. Binding 0 holds the parameters, 1 the counts (where the rows are live).
//
// Dispatch: workgroups of 256, each thread four times a column or four. Elements past the live rows
// are not written.
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<Columns>;
@group(0) @binding(5) var<storage, read_write> dx: array<Columns>;

const THREADS: u32 = 256u;
const ITEMS: u32 = 4u;

fn live_items() -> u32 {
    return live(params.rows, params.rows_count) * (params.columns / COLUMNS);
}

@compute @workgroup_size(256)
fn gelu_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = linear_workgroup(group, groups) * (THREADS * ITEMS) + index;
    let end = live_items();
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            y[at] = gelu_columns(load_x(at));
        }
    }
}

@compute @workgroup_size(256)
fn gelu_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = linear_workgroup(group, groups) * (THREADS * ITEMS) + index;
    let end = live_items();
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            dx[at] = load_dy(at) * gelu_derivative_columns(load_x(at));
        }
    }
}
