// How much better each response was than the others to the same prompt.
//
//   r_i = score_i - kl_coef kl_i,  K responses in a group
//   MEAN           A_i = r_i - mean(r)
//   LEAVE_ONE_OUT  A_i = r_i - (sum(r) - r_i) / (K - 1) = (r_i - mean(r)) K / (K - 1); 0 for K = 1
//   GROUP          A_i / (std(r of the group) + eps)
//   BATCH          MEAN: A_i / (std(r of all) + eps)
//                  LEAVE_ONE_OUT: (A_i - mean(A of all)) / (std(A of all) + eps)
//
// Standard deviations are unbiased (K - 1), and 0 of one response. Differences are taken from the
// group's first response, so that equal rewards give exactly 0.
//
//   group_advantage        A_i, divided where the scale is GROUP
//   group_advantage_batch  the division where it is BATCH
//
// Bindings: 0 params, 2 responses (R; score, kl, group_start, group_len read, advantage written).
//
// Dispatch: the first a thread a response, workgroups of 64; the second one workgroup of 256
// threads: thread t takes responses t, t + 256, ..., then a tree. Entries with group_len 0 get 0
// and count nowhere.
//
// Source: Shao et al. 2024 (arXiv 2402.03300, section 4.1.2); leave-one-out Ahmadian et al. 2024
// (arXiv 2402.14740); the deviation of the whole batch Liu et al. 2025 (arXiv 2508.08221); the
// variance with the correction for the rounded mean Chan, Golub and LeVeque 1983, equation 1.7.
const WG_SIZE: u32 = 64u;
const BATCH_WG_SIZE: u32 = 256u;
const LEAVE_ONE_OUT: u32 = 1u;
const SCALE_GROUP: u32 = 1u;

struct Params {
    responses: u32,
    baseline: u32,
    scale: u32,
    kl_coef: f32,
    eps: f32,
}

struct Response {
    score: f32,
    kl: f32,
    advantage: f32,
    surprisal: f32,
    group_start: u32,
    group_len: u32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> responses: array<Response>;

var<workgroup> sh_sums: array<vec2<f32>, BATCH_WG_SIZE>;

fn reward(i: u32) -> f32 {
    return responses[i].score - params.kl_coef * responses[i].kl;
}

@compute @workgroup_size(WG_SIZE)
fn group_advantage(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups) * WG_SIZE + local;
    if (index >= params.responses) {
        return;
    }
    let start = responses[index].group_start;
    let len = responses[index].group_len;
    if (len <= 1u) {
        responses[index].advantage = 0.0;
        return;
    }
    let origin = reward(start);
    var sum = 0.0;
    for (var i = 0u; i < len; i++) {
        sum += reward(start + i) - origin;
    }
    let mean = sum / f32(len);
    var advantage = (reward(index) - origin) - mean;
    if (params.baseline == LEAVE_ONE_OUT) {
        advantage *= f32(len) / f32(len - 1u);
    }
    if (params.scale == SCALE_GROUP) {
        var sums = vec2<f32>();
        for (var i = 0u; i < len; i++) {
            let d = (reward(start + i) - origin) - mean;
            sums += vec2<f32>(d, d * d);
        }
        advantage /= deviation(sums, f32(len)) + params.eps;
    }
    responses[index].advantage = advantage;
}

// The unbiased standard deviation of n > 1 values, of the sums of their distances from a rounded
// mean and of the squares of these.
fn deviation(sums: vec2<f32>, n: f32) -> f32 {
    return sqrt(max(sums.y - sums.x * sums.x / n, 0.0) / (n - 1.0));
}

// The sum over all threads, for each of them.
fn total(own: vec2<f32>, local: u32) -> vec2<f32> {
    // The previous sum has been read by all.
    workgroupBarrier();
    sh_sums[local] = own;
    for (var half = BATCH_WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sums[local] += sh_sums[local + half];
        }
    }
    // Makes the last round's sum visible.
    workgroupBarrier();
    return sh_sums[0];
}

// What the batch's deviation is taken of.
fn spread_value(i: u32) -> f32 {
    if (params.baseline == LEAVE_ONE_OUT) {
        return responses[i].advantage;
    }
    return reward(i);
}

@compute @workgroup_size(BATCH_WG_SIZE)
fn group_advantage_batch(@builtin(local_invocation_index) local: u32) {
    var sum = vec2<f32>();
    for (var i = local; i < params.responses; i += BATCH_WG_SIZE) {
        if (responses[i].group_len != 0u) {
            sum += vec2<f32>(spread_value(i), 1.0);
        }
    }
    let all = total(sum, local);
    let n = max(all.y, 2.0);
    let rounded = all.x / max(all.y, 1.0);
    var distance = vec2<f32>();
    for (var i = local; i < params.responses; i += BATCH_WG_SIZE) {
        if (responses[i].group_len != 0u) {
            let d = spread_value(i) - rounded;
            distance += vec2<f32>(d, d * d);
        }
    }
    let sums = total(distance, local);
    let divisor = deviation(sums, n) + params.eps;
    var mean = 0.0;
    if (params.baseline == LEAVE_ONE_OUT) {
        mean = rounded + sums.x / n;
    }
    for (var i = local; i < params.responses; i += BATCH_WG_SIZE) {
        if (responses[i].group_len != 0u) {
            responses[i].advantage = (responses[i].advantage - mean) / divisor;
        }
    }
}
