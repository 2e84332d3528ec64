// Generalised advantage estimation over the tokens of each response.
//
//   r_t = -kl_coef kl_t (0 where the weight is 0), and + score at the response's last entry
//   delta_t = r_t + gamma V_{t+1} - V_t          V behind the last entry is 0
//   A_t = delta_t + gamma lambda A_{t+1}         A behind the last entry is 0
//   returns_t = A_t + V_t
//
// t counts the entries of the response's list, whatever targets lie between them; nothing of one
// response enters another.
//
// Bindings: 0 params, 1 counts (where live), 2 answer_lists (A, read), 3 answer_rows (N, read),
// 4 experience (N; logprob, ref_logprob, value and weight read, advantage and returns written),
// 5 responses (A, read), 6 kl_control (uniform).
//
// Dispatch: a workgroup of 64 threads an answer. Each thread has a run of consecutive entries and
// walks it backwards twice: first with A = 0 behind it, which gives the A at its start as a
// function b + a A of the A behind; the runs behind are then chained, and the second walk starts
// from the right A and writes. An entry of weight 0 is a step like any other. Targets outside
// the lists and past the live answers are not touched. No two lists may share a target.
//
// Source: Schulman et al. 2015 (arXiv 1506.02438, equation 16); the reward of a token Ziegler et
// al. 2019 (arXiv 1909.08593, equation 2), Ouyang et al. 2022 (arXiv 2203.02155, section 3.5).
const WG_SIZE: u32 = 64u;

struct Params {
    answers: u32,
    answers_count: u32,
    gamma: f32,
    lambda: f32,
    kl_estimator: u32,
}

struct RowList {
    id: u32,
    start: u32,
    end: u32,
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

struct KlControl {
    kl_coef: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> answer_lists: array<RowList>;
@group(0) @binding(3) var<storage, read> answer_rows: array<u32>;
@group(0) @binding(4) var<storage, read_write> experience: array<Experience>;
@group(0) @binding(5) var<storage, read> responses: array<Response>;
@group(0) @binding(6) var<uniform> kl_control: KlControl;

// { a, b } of each run.
var<workgroup> sh_runs: array<vec2<f32>, WG_SIZE>;

// What a walk knows of the entry behind the one it is at.
struct Behind {
    value: f32,
    advantage: f32,
}

// Walks the entries [first, last) backwards and gives the advantage at the first of them. `extra`
// is the reward of the last one besides its KL penalty.
fn walk(first: u32, last: u32, extra: f32, start: Behind, write: bool) -> f32 {
    var behind = start;
    var reward = extra;
    for (var step = 1u; step <= last - first; step++) {
        let n = answer_rows[last - step];
        if (experience[n].weight != 0.0) {
            let l = experience[n].logprob - experience[n].ref_logprob;
            reward -= kl_control.kl_coef * kl_estimate(l, params.kl_estimator);
        }
        let value = experience[n].value;
        let delta = reward + params.gamma * behind.value - value;
        let advantage = delta + params.gamma * params.lambda * behind.advantage;
        if (write) {
            experience[n].advantage = advantage;
            experience[n].returns = advantage + value;
        }
        behind = Behind(value, advantage);
        reward = 0.0;
    }
    return behind.advantage;
}

@compute @workgroup_size(WG_SIZE)
fn gae(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = linear_workgroup(group, groups);
    if (index >= live(params.answers, params.answers_count)) {
        return;
    }
    let list = answer_lists[index];
    let run = (list.end - list.start + WG_SIZE - 1u) / WG_SIZE;
    let first = min(list.start + local * run, list.end);
    let last = min(first + run, list.end);
    var behind = Behind(0.0, 0.0);
    var extra = 0.0;
    if (last < list.end) {
        behind.value = experience[answer_rows[last]].value;
    } else if (first < last) {
        extra = responses[index].score;
    }
    let own = walk(first, last, extra, behind, false);
    var decay = 1.0;
    for (var i = first; i < last; i++) {
        decay *= params.gamma * params.lambda;
    }
    sh_runs[local] = vec2<f32>(decay, own);
    // Makes all runs visible.
    workgroupBarrier();
    for (var i = 1u; i < WG_SIZE - local; i++) {
        let chained = sh_runs[WG_SIZE - i];
        behind.advantage = chained.y + chained.x * behind.advantage;
    }
    walk(first, last, extra, behind, true);
}
