// Bradley-Terry loss over pairs of rewards, with its gradient.
//
//   d      = r_c - r_r - margin
//   loss   = weight (-(1 - s) ln sigma(d) - s ln sigma(-d) + c (r_c + r_r)^2)
//   dr_c   = pair_scale weight (-(1 - s) sigma(-d) + s sigma(d) + 2 c (r_c + r_r))
//   dr_r   = pair_scale weight ( (1 - s) sigma(-d) - s sigma(d) + 2 c (r_c + r_r))
//
// with s the label smoothing and c the coefficient that centres rewards around zero.
//
// Bindings: 0 params, 1 counts (where live), 2 rewards (2P; chosen at 2p, rejected at 2p + 1; read),
// 3 pairs (P, read), 4 losses (P, written; without pair_scale), 5 drewards (2P, written).
//
// Dispatch: one thread a pair, workgroups of 64. Pairs past the live number are not touched.
//
// Source: Bradley & Terry 1952; Ouyang et al. 2022 (arXiv 2203.02155, section 3.5); margin Touvron
// et al. 2023 (arXiv 2307.09288, section 3.2.2); centring Eisenstein et al. 2023 (arXiv 2312.09244).
struct Params {
    pairs: u32,
    pairs_count: u32,
    label_smoothing: f32,
    center_rewards_coefficient: f32,
    pair_scale: f32,
}

struct Pair {
    weight: f32,
    margin: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rewards: array<f32>;
@group(0) @binding(3) var<storage, read> pairs: array<Pair>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> drewards: array<f32>;

@compute @workgroup_size(64)
fn pairwise_loss(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = linear_workgroup(group, groups) * 64u + local;
    if (p >= live(params.pairs, params.pairs_count)) {
        return;
    }
    let chosen = rewards[2u * p];
    let rejected = rewards[2u * p + 1u];
    let pair = pairs[p];
    let d = chosen - rejected - pair.margin;
    let sum = chosen + rejected;
    let smoothing = params.label_smoothing;
    let centering = params.center_rewards_coefficient;

    losses[p] = pair.weight * (-(1.0 - smoothing) * log_sigmoid(d) - smoothing * log_sigmoid(-d)
        + centering * sum * sum);

    let by_gap = -(1.0 - smoothing) * sigmoid(-d) + smoothing * sigmoid(d);
    let by_sum = 2.0 * centering * sum;
    let factor = pair_scale(params.pair_scale) * pair.weight;
    drewards[2u * p] = factor * (by_sum + by_gap);
    drewards[2u * p + 1u] = factor * (by_sum - by_gap);
}
