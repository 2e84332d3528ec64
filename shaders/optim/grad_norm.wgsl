// The norm of a gradient that lies in several buffers, and the factor that clips it.
//
//   norm = sqrt(sum g^2),  coefficient = min(1, max_norm / (norm + 1e-6))
//
//   grad_norm_partials   one row { sum, large sum, how many are not finite, 0 } a workgroup, of
//                        the finite elements of one buffer
//   grad_norm_finish     stats = { norm of the finite elements, coefficient, 1 if any element or
//                        the norm is not finite else 0, steps skipped so far (+ that flag) }
//
// A square overflows above 1.8e19, so where a thread's sum comes near, it sums again with elements
// of 2^40 and more scaled by 2^-80 and apart ("large sum"). Elements below 1e-19 count as zero.
//
// Bindings: 0 params, 2 grads (length, an operand), 3 partials (written), 4 all_partials
// (partials, 4; read), 5 stats (4; read and written).
//
// Dispatch: partials a workgroup of 256 a 16,384 elements; finish one workgroup of 256. The
// order of all sums is fixed.
//
// Source: Pascanu, Mikolov & Bengio 2013 (arXiv 1211.5063, algorithm 1); two ranges after Blue 1978
// (ACM TOMS 4:1).
const WG_SIZE: u32 = 256u;
const LARGE: f32 = 1099511627776.0; // 2^40
const SHRINK: f32 = 8.271806125530277e-25; // 2^-80
const GROW: f32 = 1.2089258196146292e24; // 2^80
const NEAR_OVERFLOW: u32 = 0x6c4ecb8fu; // the bits of 1e27
const FOURS_PER_THREAD: u32 = 16u;

struct Params {
    fours: u32,
    first_partial: u32,
    partials: u32,
    max_norm: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> all_partials: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> stats: array<f32>;

var<workgroup> sh_sum: array<vec4<f32>, WG_SIZE>;

// { sum of squares, large sum of squares, not finite, 0 } of four elements
fn careful_squares(g: vec4<f32>) -> vec4<f32> {
    let finite = (bitcast<vec4<u32>>(g) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    let large = finite & (abs(g) >= vec4<f32>(LARGE));
    let zero = vec4<f32>(0.0);
    let low = select(zero, g, finite & !large);
    let high = select(zero, g, large) * SHRINK;
    let bad = select(vec4<f32>(1.0), zero, finite);
    return vec4<f32>(dot(low, low), dot(high, high), dot(bad, vec4<f32>(1.0)), 0.0);
}

@compute @workgroup_size(WG_SIZE)
fn grad_norm_partials(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    let first = index * WG_SIZE * FOURS_PER_THREAD;
    if (first >= params.fours) {
        return;
    }
    let end = min(first + WG_SIZE * FOURS_PER_THREAD, params.fours);
    var squares = vec4<f32>();
    for (var i = first + local; i < end; i += WG_SIZE) {
        let g = load_grads(i);
        squares += g * g;
    }
    var sum = vec4<f32>(dot(squares, vec4<f32>(1.0)), 0.0, 0.0, 0.0);
    // As integers the bits of infinities and of what is not a number are larger still.
    if (bitcast<u32>(sum.x) >= NEAR_OVERFLOW) {
        sum = vec4<f32>();
        for (var i = first + local; i < end; i += WG_SIZE) {
            sum += careful_squares(load_grads(i));
        }
    }
    sh_sum[local] = sum;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    if (local == 0u) {
        partials[params.first_partial + index] = sh_sum[0];
    }
}

@compute @workgroup_size(WG_SIZE)
fn grad_norm_finish(@builtin(local_invocation_index) local: u32) {
    var sum = vec4<f32>();
    for (var i = local; i < params.partials; i += WG_SIZE) {
        sum += all_partials[i];
    }
    sh_sum[local] = sum;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    if (local == 0u) {
        let total = sh_sum[0];
        var norm = sqrt(total.x);
        if (total.y > 0.0) {
            let large = sqrt(total.y) * GROW;
            let ratio = norm / large;
            norm = large * sqrt(1.0 + ratio * ratio);
        }
        let bad = total.z > 0.0 || !is_finite(norm);
        stats[0] = norm;
        stats[1] = min(1.0, params.max_norm / (norm + 1e-6));
        stats[2] = select(0.0, 1.0, bad);
        stats[3] += select(0.0, 1.0, bad);
    }
}
