// What is remembered of sampled tokens until the policy has learnt from them, and what is summed
// over each response.
//
//   experience_tokens     experience[n] = { logprob, ref_logprob, value, 0, 0, weight } of target
//                         n; the weight is 0 where the target belongs to no answer
//   experience_responses  responses[a].kl = sum(logprob - ref_logprob), responses[a].surprisal =
//                         -sum(logprob), over the answer's targets whose weight is not 0
//
// Bindings: 0 params, 1 counts (where live), 2 targets (N, read), 3 logprobs, 4 ref_logprobs
// (N, read), 5 values (N, read where has_values), 6 experience (N, written), 7 answer_lists
// (A, read), 8 answer_rows (N, read), 9 responses (A; kl and surprisal written).
//
// Dispatch: tokens a thread a target, workgroups of 64; responses a workgroup of 64 threads an
// answer: thread t takes entries t, t + 64, ..., then a tree, so the order of the sums is fixed.
// An empty list sums to 0. Nothing past the live targets and answers is touched.
//
// Source: the one-sample estimate of KL(policy || reference), Schulman 2020, "Approximating KL
// divergence".
const WG_SIZE: u32 = 64u;
const NONE: u32 = 0xffffffffu;

struct Params {
    targets: u32,
    targets_count: u32,
    answers: u32,
    answers_count: u32,
    has_values: u32,
}

struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

struct TokenLogprob {
    logprob: f32,
    entropy: f32,
    lse: f32,
    pad: u32,
}

struct Experience {
    logprob: f32,
    ref_logprob: f32,
    value: f32,
    advantage: f32,
    returns: f32,
    weight: f32,
    pad0: u32,
    pad1: u32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
    pad: u32,
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
@group(0) @binding(2) var<storage, read> targets: array<Target>;
@group(0) @binding(3) var<storage, read> logprobs: array<TokenLogprob>;
@group(0) @binding(4) var<storage, read> ref_logprobs: array<TokenLogprob>;
@group(0) @binding(5) var<storage, read> values: array<f32>;
@group(0) @binding(6) var<storage, read_write> experience: array<Experience>;
@group(0) @binding(7) var<storage, read> answer_lists: array<RowList>;
@group(0) @binding(8) var<storage, read> answer_rows: array<u32>;
@group(0) @binding(9) var<storage, read_write> responses: array<Response>;

var<workgroup> sh_sums: array<vec2<f32>, WG_SIZE>;

@compute @workgroup_size(WG_SIZE)
fn experience_tokens(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let n = linear_workgroup(group, groups) * WG_SIZE + local;
    if (n >= live(params.targets, params.targets_count)) {
        return;
    }
    let goal = targets[n];
    var value = 0.0;
    if (params.has_values != 0u) {
        value = values[n];
    }
    let weight = select(goal.weight, 0.0, goal.answer == NONE);
    experience[n] = Experience(
        logprobs[n].logprob, ref_logprobs[n].logprob, value, 0.0, 0.0, weight, 0u, 0u,
    );
}

@compute @workgroup_size(WG_SIZE)
fn experience_responses(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let a = linear_workgroup(group, groups);
    if (a >= live(params.answers, params.answers_count)) {
        return;
    }
    let list = answer_lists[a];
    var sums = vec2<f32>();
    for (var i = list.start + local; i < list.end; i += WG_SIZE) {
        let n = answer_rows[i];
        if (targets[n].weight != 0.0) {
            let logprob = logprobs[n].logprob;
            sums += vec2<f32>(logprob - ref_logprobs[n].logprob, -logprob);
        }
    }
    sh_sums[local] = sums;
    for (var half = WG_SIZE / 2u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sums[local] += sh_sums[local + half];
        }
    }
    if (local == 0u) {
        responses[a].kl = sh_sums[0].x;
        responses[a].surprisal = sh_sums[0].y;
    }
}
