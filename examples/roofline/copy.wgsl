// Bandwidth: y = x, ITEMS vec4 a thread.
//
// Bindings: 2 x (read), 3 y (written), whole multiples of 1,024 ITEMS elements. Dispatch: workgroups of
// 256, each 256 ITEMS vec4, in one dimension.
//
// Constants of the prelude: ITEMS.
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn copy_values(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first = group.x * (THREADS * ITEMS) + index;
    for (var i = 0u; i < ITEMS; i++) {
        let at = first + i * THREADS;
        y[at] = x[at];
    }
}
