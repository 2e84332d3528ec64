// Arithmetic rate: CHAINS independent chains of vec4 a thread, each 2 STEPS fused multiply-adds long,
// in registers.
//
// Bindings: 2 factors (read): what a chain is multiplied with, what is added; known only when the
// kernel runs, so that nothing is computed beforehand. 3 sums (written): a thread's chains together, so
// that nothing is left out. Dispatch: workgroups of 256 in one dimension.
//
// Constants of the prelude: CHAINS, STEPS.
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn multiply_add(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let factor = vec4(factors[0]);
    let summand = vec4(factors[1]);
    let start = vec4(0.0, 0.25, 0.5, 0.75) + f32(index) / f32(THREADS);
    var chains: array<vec4<f32>, CHAINS>;
    // unroll
    for (var c = 0u; c < CHAINS; c += 1u) {
        chains[c] = start + f32(c);
    }
    // Twice a pass: the loop's own counting is then a small part.
    for (var step = 0u; step < STEPS; step += 1u) {
        // unroll
        for (var c = 0u; c < CHAINS; c += 1u) {
            chains[c] = fma(chains[c], factor, summand);
        }
        // unroll
        for (var c = 0u; c < CHAINS; c += 1u) {
            chains[c] = fma(chains[c], factor, summand);
        }
    }
    var sum = vec4(0.0);
    // unroll
    for (var c = 0u; c < CHAINS; c += 1u) {
        sum += chains[c];
    }
    sums[group.x * THREADS + index] = (sum.x + sum.y) + (sum.z + sum.w);
}
