// Figures over all pairs of a batch, written into one row of a ring of metrics.
//
//   row = { pair_scale sum(loss), number of pairs with r_c > r_r, sum(r_c - r_r), sum(r_c + r_r),
//           sum(r_c^2 + r_r^2), pairs, how many losses and rewards are not finite, 0 }
//
// Bindings: 0 params, 1 counts (where live), 2 rewards (2P; chosen at 2p, rejected at 2p + 1; read),
// 3 losses (P, read), 4 metrics (slots, 8; written at row `slot` modulo slots).
//
// Dispatch: one workgroup of 128 threads; thread t takes pairs t, t + 128, ..., then a tree: the
// order of the sums is fixed. A tie is not counted as right.
const WG_SIZE: u32 = 128u;

struct Params {
    pairs: u32,
    pairs_count: u32,
    slots: u32,
    pair_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
@group(0) @binding(3) var<storage, read> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> metrics: array<f32>;

// loss, right, gap, reward
var<workgroup> sh_first: array<vec4<f32>, WG_SIZE>;
// squared reward, not finite
var<workgroup> sh_second: array<vec2<f32>, WG_SIZE>;

@compute @workgroup_size(WG_SIZE)
fn pairwise_statistics(@builtin(local_invocation_index) local: u32) {
    let pairs = live(params.pairs, params.pairs_count);
    var first = vec4<f32>();
    var second = vec2<f32>();
    for (var p = local; p < pairs; p += WG_SIZE) {
        let chosen = rewards[2u * p];
        let rejected = rewards[2u * p + 1u];
        let loss = losses[p];
        let right = select(0.0, 1.0, chosen > rejected);
        let finite = vec3<bool>(is_finite(chosen), is_finite(rejected), is_finite(loss));
        first += vec4<f32>(loss, right, chosen - rejected, chosen + rejected);
        second += vec2<f32>(
            chosen * chosen + rejected * rejected,
            dot(select(vec3<f32>(1.0), vec3<f32>(0.0), finite), vec3<f32>(1.0)),
        );
    }
    sh_first[local] = first;
    sh_second[local] = second;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_first[local] += sh_first[local + half];
            sh_second[local] += sh_second[local + half];
        }
    }
    if (local == 0u) {
        let total = sh_first[0];
        let row = (metrics_slot() % params.slots) * 8u;
        metrics[row] = total.x * pair_scale(params.pair_scale);
        metrics[row + 1u] = total.y;
        metrics[row + 2u] = total.z;
        metrics[row + 3u] = total.w;
        metrics[row + 4u] = sh_second[0].x;
        metrics[row + 5u] = f32(pairs);
        metrics[row + 6u] = sh_second[0].y;
        metrics[row + 7u] = 0.0;
    }
}
