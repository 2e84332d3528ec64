// GRPO and RLOO: clipped surrogate and KL penalty of every token of a response that has one
// advantage A, with the ratio of each token or of the whole response; gradients and figures.
//
//   l_t = logprob_t - old logprob_t;  n = number of tokens with weight != 0
//   l   = l_t (level 0), sum l_t / n (level 1), sum l_t (level 2);  r = exp(l)
//   kl_t = exp(-q_t) - 1 + q_t,  q_t = logprob_t - ref logprob_t;  k_t = kl_t r or kl_t
//   loss = sum target_scale weight_t (-min(min(r, delta) A, clamp(r, 1 - e_l, 1 + e_h) A)
//                                     + beta k_t)
//
// k_t is kl_t r with the bias correction; the gradient goes through that r unclipped. A token of
// weight 0 takes no part in anything and gets a gradient of zero.
//
// Bindings: 0 params, 1 counts (where live), 2 answer_lists (A, read), 3 answer_rows (N, read: the
// targets of each answer), 4 logprobs (N, read), 5 experience (N, read), 6 responses (A, read:
// advantage), 7 partials (A, 16; written: figures a response), 8 gradients (N; written for the
// targets in the lists, zero elsewhere by an earlier dispatch).
//
// Dispatch: one workgroup of 64 threads a response; thread t takes its targets t, t + 64, ...
//
// Source: Shao et al. 2024 (arXiv 2402.03300, equation 3); GSPO Zheng et al. 2025 (arXiv
// 2507.18071, equation 5); RLOO Ahmadian et al. 2024 (arXiv 2402.14740); delta: INTELLECT-2,
// arXiv 2505.07291, section 3.4.
const LEVEL_TOKEN: u32 = 0u;
const LEVEL_SEQUENCE_MEAN: u32 = 1u;

struct Params {
    answers: u32,
    answers_count: u32,
    level: u32,
    bias_correction: u32,
    ratio_low: f32,
    ratio_high: f32,
    delta: f32,
    log_low: f32,
    log_high: f32,
    log_delta: f32,
    beta: f32,
    target_scale: f32,
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
@group(0) @binding(2) var<storage, read> answer_lists: array<RowList>;
@group(0) @binding(3) var<storage, read> answer_rows: array<u32>;
@group(0) @binding(4) var<storage, read> logprobs: array<TokenLogprob>;
@group(0) @binding(5) var<storage, read> experience: array<Experience>;
@group(0) @binding(6) var<storage, read> responses: array<Response>;
@group(0) @binding(8) var<storage, read_write> gradients: array<TokenGradient>;

// log-ratio, tokens, weight, weight kl
var<workgroup> sh_sequence: array<vec4<f32>, 64>;

// What is the same for all tokens of a response.
struct Sequence {
    log_ratio: f32,
    // How much each token's log-probability moves it.
    share: f32,
    weight: f32,
    weighted_kl: f32,
}

fn kl_to_reference(now: TokenLogprob, old: Experience) -> f32 {
    return exp_excess(difference(old.ref_logprob, now.logprob));
}

// Sums over the response. All threads must come here.
fn sequence_of(list: RowList, local: u32) -> Sequence {
    var sum = vec4<f32>();
    for (var i = list.start + local; i < list.end; i += 64u) {
        let n = answer_rows[i];
        let now = logprobs[n];
        let old = experience[n];
        if (old.weight != 0.0) {
            let log_ratio = difference(now.logprob, old.logprob);
            sum += vec4<f32>(log_ratio, 1.0, old.weight, old.weight * kl_to_reference(now, old));
        }
    }
    sh_sequence[local] = sum;
    for (var half = 32u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sequence[local] += sh_sequence[local + half];
        }
    }
    // Makes the total visible to all threads.
    workgroupBarrier();
    let total = sh_sequence[0];
    let share = select(1.0, 1.0 / max(total.y, 1.0), params.level == LEVEL_SEQUENCE_MEAN);
    return Sequence(total.x * share, share, total.z, total.w);
}

// The gradient and figures of one token of weight != 0.
fn token_loss(
    n: u32,
    old: Experience,
    advantage: f32,
    whole: Sequence,
    figures: ptr<function, Figures>,
) {
    let now = logprobs[n];
    let scale = target_scale(params.target_scale);
    let token_log_ratio = difference(now.logprob, old.logprob);
    let by_token = params.level == LEVEL_TOKEN;
    let log_ratio = select(whole.log_ratio, token_log_ratio, by_token);
    let clip = Clip(
        params.ratio_low, params.ratio_high, params.delta,
        params.log_low, params.log_high, params.log_delta,
    );
    let clipped = surrogate(log_ratio, bounded(advantage), clip);
    let ratio = bounded_exp(log_ratio);
    let correction = select(1.0, ratio, params.bias_correction != 0u);
    let through_ratio = select(0.0, ratio, params.bias_correction != 0u) * params.beta;

    let x = difference(old.ref_logprob, now.logprob);
    let plain_kl = exp_excess(x);
    let kl = plain_kl * correction;
    let own = old.weight * params.beta * correction * -exp_minus_one(x);
    let by_ratio = select(
        whole.share * (whole.weight * clipped.slope + through_ratio * whole.weighted_kl),
        old.weight * (clipped.slope + through_ratio * plain_kl),
        by_token,
    );
    gradients[n] = TokenGradient(scale * (own + by_ratio), 0.0);

    let policy = scale * old.weight * clipped.loss;
    let loss = policy + scale * old.weight * params.beta * kl;
    let bad = !(is_finite(now.logprob) && is_finite(now.entropy) && is_finite(old.logprob)
        && is_finite(old.ref_logprob) && is_finite(advantage) && is_finite(loss));
    (*figures)[0] += vec4<f32>(loss, policy, 0.0, bounded(now.entropy));
    (*figures)[1] += vec4<f32>(
        -token_log_ratio,
        0.5 * token_log_ratio * token_log_ratio,
        exp_excess(token_log_ratio),
        kl,
    );
    (*figures)[2].x = min((*figures)[2].x, ratio);
    (*figures)[2].y = max((*figures)[2].y, ratio);
    (*figures)[2].z += clipped.clipped_low;
    (*figures)[2].w += clipped.clipped_high;
    let held = is_held(token_log_ratio) + is_held(x);
    (*figures)[3] += vec4<f32>(0.0, 1.0, select(0.0, 1.0, bad), held);
}

@compute @workgroup_size(64)
fn grpo_loss(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let answer = linear_workgroup(group, groups);
    if (answer >= live(params.answers, params.answers_count)) {
        return;
    }
    let list = answer_lists[answer];
    let advantage = responses[answer].advantage;
    var whole = Sequence();
    if (params.level != LEVEL_TOKEN) {
        whole = sequence_of(list, local);
    }
    var figures = Figures();
    figures[2].x = LARGEST_RATIO;
    if (local == 0u) {
        figures[3].w = is_held(whole.log_ratio);
    }
    for (var i = list.start + local; i < list.end; i += 64u) {
        let n = answer_rows[i];
        let old = experience[n];
        if (old.weight != 0.0) {
            token_loss(n, old, advantage, whole, &figures);
        } else {
            gradients[n] = TokenGradient(0.0, 0.0);
        }
    }
    write_workgroup_figures(answer, figures, local);
}
