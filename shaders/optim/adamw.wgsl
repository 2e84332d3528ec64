// One step of AdamW over a window of parameters, with clipping; the gradients are cleared.
//
//   g      = gradient * coefficient                     (from the gradient norm)
//   param *= decay                                      (1 - lr weight_decay; the first `decayed`)
//   m      = beta1 m + (1 - beta1) g
//   v      = beta2 v + (1 - beta2) g^2
//   param -= step_size m / (root_scale sqrt(v) + eps)
//
// with step_size = lr / (1 - beta1^t) and root_scale = 1 / sqrt(1 - beta2^t). Where the norm was
// not finite, only the gradients are cleared.
//
// Moments of |m| < 1e-30 and |v| < 1e-35 count as zero: decayed further they would become
// denormals, which some devices compute many times slower.
//
// Bindings: 0 params, 1 hyper, 2 param, 3 gradient, 4 m, 5 v (each the same length, read as operands
// and written), 6 stats (4, of the gradient norm; read).
//
// Dispatch: one vec4 a thread, workgroups of 256.
//
// Source: Loshchilov & Hutter 2017 (arXiv 1711.05101, algorithm 2), in PyTorch's order.
struct Params {
    fours: u32,
    decayed_fours: u32,
}

struct Hyper {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    eps: f32,
    step_size: f32,
    root_scale: f32,
    decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<uniform> hyper: Hyper;
@group(0) @binding(2) var<storage, read_write> param: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> gradient: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> first_moment: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> second_moment: array<vec4<f32>>;
@group(0) @binding(6) var<uniform> stats: vec4<f32>;

@compute @workgroup_size(256)
fn adamw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_workgroup(group, groups) * 256u + local;
    if (i >= params.fours) {
        return;
    }
    // Every load stands before the first store, and no branch in between: a compiler moves no load
    // over a store, and one that is needed in a branch only it moves there.
    let zero = vec4<f32>(0.0);
    let old = load_param(i);
    let g = load_gradient(i) * stats.y;
    var m = load_first_moment(i);
    var v = load_second_moment(i);
    if (stats.z != 0.0) {
        gradient[i] = zero;
        return;
    }
    m = select(m, zero, abs(m) < vec4<f32>(1e-30));
    v = select(v, zero, v < vec4<f32>(1e-35));
    m = hyper.beta1 * m + hyper.one_minus_beta1 * g;
    v = hyper.beta2 * v + hyper.one_minus_beta2 * g * g;
    let decay = select(1.0, hyper.decay, i < params.decayed_fours);
    let denominator = sqrt(v) * hyper.root_scale + hyper.eps;
    gradient[i] = zero;
    first_moment[i] = m;
    second_moment[i] = v;
    param[i] = old * decay - hyper.step_size * (m / denominator);
}
