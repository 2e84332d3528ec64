// Gated linear unit with SiLU (Shazeer 2020, arXiv 2002.05202, equation 6): y = silu(gate) up, with
// silu(g) = g sigmoid(g). A row of gate_up holds I gates, then I of what they let through.
//
//   swiglu_forward: bindings: 2 gate_up (rows, 2I), read; 3 y (rows, I), written
//   swiglu_backward: dgate = dy up silu'(gate), dup = dy silu(gate)
//     bindings: 2 gate_up, 4 dy (rows, I), both read; 5 dgate_up (rows, 2I), written
//
// What is read are operands. Binding 0 holds the parameters, 1 the counts (where the rows are live).
//
// Dispatch: workgroups of 256, each thread four times a column or four of y. Rows past the live
// ones are not written.
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<Columns>;
@group(0) @binding(5) var<storage, read_write> dgate_up: array<Columns>;

const THREADS: u32 = 256u;
const ITEMS: u32 = 4u;

// exp(-|g|), which no gate makes overflow; beyond 104 it is zero in f32.
fn decay(g: Columns) -> Columns {
    return exp(-min(abs(g), Columns(200.0)));
}

fn sigmoid(g: Columns, e: Columns) -> Columns {
    return select(e, Columns(1.0), g >= Columns()) / (Columns(1.0) + e);
}

@compute @workgroup_size(256)
fn swiglu_forward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let width = params.columns / COLUMNS;
    let first = linear_workgroup(group, groups) * (THREADS * ITEMS) + index;
    let end = live(params.rows, params.rows_count) * width;
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            let gate = at + at / width * width;
            let g = load_gate_up(gate);
            y[at] = g * sigmoid(g, decay(g)) * load_gate_up(gate + width);
        }
    }
}

@compute @workgroup_size(256)
fn swiglu_backward(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let width = params.columns / COLUMNS;
    let first = linear_workgroup(group, groups) * (THREADS * ITEMS) + index;
    let end = live(params.rows, params.rows_count) * width;
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            let gate = at + at / width * width;
            let g = load_gate_up(gate);
            let e = decay(g);
            let s = sigmoid(g, e);
            // silu' = s + g s (1 - s); the last factor keeps its digits as the sigmoid of -g.
            let slope = s + g * s * sigmoid(-g, e);
            let incoming = load_dy(at);
            dgate_up[gate] = incoming * load_gate_up(gate + width) * slope;
            dgate_up[gate + width] = incoming * (g * s);
        }
    }
}
