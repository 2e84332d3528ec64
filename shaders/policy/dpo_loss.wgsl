// DPO and its relatives over pairs of answers, with gradients and figures.
//
//   a = sum logprob(chosen) - ref(chosen), b = the same for the rejected answer
//   d = a - b, or a / |chosen| - b / |rejected| (per-token averages);  z = beta d
//   form 0: loss = -p ln sigma(z) - q ln sigma(-z)   (DPO with label smoothing, robust DPO)
//   form 1: loss = max(0, 1 - z)                     (hinge; derivative 0 at the kink)
//   form 2: loss = (d - 1 / (2 beta))^2              (IPO)
//   dlogprob of each token of the chosen answer: pair_scale weight dloss/da, and so for b.
//
// Bindings: 0 params, 1 counts (where live), 2 answer_lists (2P, read; chosen at 2p, rejected at
// 2p + 1), 3 answer_rows (N, read), 4 logprobs (N, read), 5 ref_logps (2P, read), 6 pairs (P, read:
// weight), 7 partials (P, 16; written: figures a pair), 8 gradients (N; written for the targets in
// the lists, zero elsewhere by an earlier dispatch).
//
// Dispatch: one workgroup of 64 threads a pair; thread t takes targets t, t + 64, ... of both
// answers, then a tree, then each thread writes its targets' gradients.
//
// Source: Rafailov et al. 2023 (arXiv 2305.18290, equation 7); label smoothing Mitchell 2023,
// "A note on DPO with noisy preferences"; robust Chowdhury et al. 2024 (arXiv 2403.00409, equation
// 11); hinge Zhao et al. 2023 (arXiv 2305.10425); IPO Azar et al. 2023 (arXiv 2310.12036, equation
// 17).
const FORM_HINGE: u32 = 1u;
const FORM_SQUARE: u32 = 2u;

struct Params {
    pairs: u32,
    pairs_count: u32,
    form: u32,
    per_token: u32,
    beta: f32,
    right: f32,
    wrong: f32,
    pair_scale: f32,
}

struct Pair {
    weight: f32,
    margin: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> answer_lists: array<RowList>;
@group(0) @binding(3) var<storage, read> answer_rows: array<u32>;
@group(0) @binding(4) var<storage, read> logprobs: array<TokenLogprob>;
@group(0) @binding(5) var<storage, read> ref_logps: array<f32>;
@group(0) @binding(6) var<storage, read> pairs: array<Pair>;
@group(0) @binding(8) var<storage, read_write> gradients: array<TokenGradient>;

// logprob of the chosen and of the rejected answer, entropy, not finite
var<workgroup> sh_sum: array<vec4<f32>, 64>;

fn bad(x: f32) -> f32 {
    return select(1.0, 0.0, is_finite(x));
}

// What a thread's targets of one answer add up to: logprob, entropy, values not finite.
fn answer_sums(list: RowList, local: u32) -> vec3<f32> {
    var sum = vec3<f32>();
    for (var i = list.start + local; i < list.end; i += 64u) {
        let token = logprobs[answer_rows[i]];
        let not_finite = bad(token.logprob) + bad(token.entropy);
        sum += vec3<f32>(bounded(token.logprob), bounded(token.entropy), not_finite);
    }
    return sum;
}

// The loss and its derivative with respect to d.
fn loss_of(d: f32) -> vec2<f32> {
    let z = bounded(params.beta * d);
    if (params.form == FORM_HINGE) {
        return select(vec2<f32>(0.0), vec2<f32>(1.0 - z, -params.beta), z < 1.0);
    }
    if (params.form == FORM_SQUARE) {
        let gap = d - 0.5 / params.beta;
        return vec2<f32>(gap * gap, 2.0 * gap);
    }
    return vec2<f32>(
        -params.right * log_sigmoid(z) - params.wrong * log_sigmoid(-z),
        params.beta * (params.wrong * sigmoid(z) - params.right * sigmoid(-z)),
    );
}

fn write_gradients(list: RowList, local: u32, dlogprob: f32) {
    for (var i = list.start + local; i < list.end; i += 64u) {
        gradients[answer_rows[i]] = TokenGradient(dlogprob, 0.0);
    }
}

@compute @workgroup_size(64)
fn dpo_loss(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = linear_workgroup(group, groups);
    if (p >= live(params.pairs, params.pairs_count)) {
        return;
    }
    let chosen = answer_lists[2u * p];
    let rejected = answer_lists[2u * p + 1u];
    let first = answer_sums(chosen, local);
    let second = answer_sums(rejected, local);
    sh_sum[local] = vec4<f32>(first.x, second.x, first.y + second.y, first.z + second.z);
    for (var half = 32u; half > 0u; half /= 2u) {
        // Makes the sums of the previous round visible.
        workgroupBarrier();
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    // Makes the total visible to all threads.
    workgroupBarrier();
    let total = sh_sum[0];
    let references = vec2<f32>(ref_logps[2u * p], ref_logps[2u * p + 1u]);
    let lengths = vec2<f32>(f32(chosen.end - chosen.start), f32(rejected.end - rejected.start));
    let a = difference(total.x, references.x);
    let b = difference(total.y, references.y);
    let shares = select(vec2<f32>(1.0), 1.0 / max(lengths, vec2<f32>(1.0)), params.per_token != 0u);
    let loss = loss_of(a * shares.x - b * shares.y);
    let scale = pair_scale(params.pair_scale) * pairs[p].weight;
    write_gradients(chosen, local, scale * loss.y * shares.x);
    write_gradients(rejected, local, -scale * loss.y * shares.y);
    if (local == 0u) {
        let not_finite = total.w + bad(references.x) + bad(references.y) + bad(scale * loss.x);
        var figures = Figures();
        figures[0] = vec4<f32>(
            scale * loss.x, select(0.0, 1.0, a > b), params.beta * (a - b), params.beta * a,
        );
        figures[1] = vec4<f32>(params.beta * b, bounded(total.x), bounded(total.y), total.z);
        figures[2] = vec4<f32>(0.0, 0.0, 1.0, lengths.x + lengths.y);
        figures[3].x = not_finite;
        write_figures(p, figures);
    }
}
