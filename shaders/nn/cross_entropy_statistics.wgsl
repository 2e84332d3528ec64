// Figures over all targets of a batch, written into one row of a ring of metrics.
//
//   row = { target_scale sum(-weight logprob), targets, sum(logprob), sum(weight), 0, 0,
//           how many log-probabilities are not finite, 0 }
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logprobs (N, read), 4 metrics
// (slots, 8; written at row `slot` modulo slots).
//
// Dispatch: one workgroup of 128 threads; thread t takes targets t, t + 128, ..., then a tree: the
// order of the sums is fixed.
const WG_SIZE: u32 = 128u;

struct Params {
    targets: u32,
    targets_count: u32,
    slots: u32,
    target_scale: f32,
}

struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> targets: array<Target>;
@group(0) @binding(3) var<storage, read> logprobs: array<f32>;
@group(0) @binding(4) var<storage, read_write> metrics: array<f32>;

// loss, logprob, weight, not finite
var<workgroup> sh_sum: array<vec4<f32>, WG_SIZE>;

@compute @workgroup_size(WG_SIZE)
fn cross_entropy_statistics(@builtin(local_invocation_index) local: u32) {
    let count = live(params.targets, params.targets_count);
    var sum = vec4<f32>();
    for (var n = local; n < count; n += WG_SIZE) {
        let logprob = logprobs[n];
        let weight = targets[n].weight;
        let bad = select(1.0, 0.0, is_finite(logprob));
        sum += vec4<f32>(-weight * logprob, logprob, weight, bad);
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
        let row = (metrics_slot() % params.slots) * 8u;
        metrics[row] = total.x * target_scale(params.target_scale);
        metrics[row + 1u] = f32(count);
        metrics[row + 2u] = total.y;
        metrics[row + 3u] = total.z;
        metrics[row + 4u] = 0.0;
        metrics[row + 5u] = 0.0;
        metrics[row + 6u] = total.w;
        metrics[row + 7u] = 0.0;
    }
}
