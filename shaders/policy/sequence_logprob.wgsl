// The summed log-probability of every answer: out[a] = sum of logprob over the answer's targets.
//
// Bindings: 0 params, 1 counts (where live), 2 answer_lists (A, read), 3 answer_rows (N, read), 4
// logprobs (N, read), 5 out (A, written; 0 for an answer without targets).
//
// Dispatch: one workgroup of 64 threads an answer; thread t takes its targets t, t + 64, ..., then a
// tree. dpo_loss adds in the same order: a model that is its own reference is at a distance of 0.
struct Params {
    answers: u32,
    answers_count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> answer_lists: array<RowList>;
@group(0) @binding(3) var<storage, read> answer_rows: array<u32>;
@group(0) @binding(4) var<storage, read> logprobs: array<TokenLogprob>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<workgroup> sh_sum: array<f32, 64>;

@compute @workgroup_size(64)
fn sequence_logprob(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let answer = linear_workgroup(group, groups);
    if (answer >= live(params.answers, params.answers_count)) {
        return;
    }
    let list = answer_lists[answer];
    var sum = 0.0;
    for (var i = list.start + local; i < list.end; i += 64u) {
        sum += bounded(logprobs[answer_rows[i]].logprob);
    }
    sh_sum[local] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    if (local == 0u) {
        out[answer] = sh_sum[0];
    }
}
