// PPO: clipped surrogate, clipped value loss, entropy bonus and KL penalty of every target, with
// gradients and figures.
//
//   l  = logprob - old logprob, r = exp(l)
//   policy = -min(r A, clamp(r, 1 - c, 1 + c) A) + kl_coef kl - entropy_coef H
//   v' = clamp(v, v_old - c_v, v_old + c_v)
//   value  = max((v - R)^2, (v' - R)^2) / 2
//   loss   = sum target_scale weight policy + sum value_scale vf_coef value
//
// (value_scale is `pair_scale` where there are counts: a batch of PPO has no pairs.)
// With q = logprob - ref logprob and kl = q (k1), q^2 / 2 (k2) or exp(-q) - 1 + q (k3). Gradients
// reach `logprob`, `entropy` and `value`. A target of weight 0 has no policy loss but a value loss.
//
// Bindings: 0 params, 1 counts (where live), 2 logprobs (N, read), 3 experience (N, read), 4 values
// (N, read), 5 gradients (N, written), 6 dvalues (N, written), 7 partials (ceil(N / 64), 16;
// written: figures a workgroup), 8 kl_control (uniform).
//
// Dispatch: one thread a target, workgroups of 64. Targets past the live number are not touched.
//
// Source: Schulman et al. 2017 (arXiv 1707.06347, equations 7 and 9); value clipping as in OpenAI
// baselines' ppo2; KL estimators Schulman 2020, "Approximating KL divergence".
struct Params {
    targets: u32,
    targets_count: u32,
    kl_estimator: u32,
    kl_factor: f32,
    ratio_low: f32,
    ratio_high: f32,
    log_low: f32,
    log_high: f32,
    value_range: f32,
    vf_coef: f32,
    entropy_coef: f32,
    target_scale: f32,
    value_scale: f32,
}

struct KlControl {
    kl_coef: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> logprobs: array<TokenLogprob>;
@group(0) @binding(3) var<storage, read> experience: array<Experience>;
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradients: array<TokenGradient>;
@group(0) @binding(6) var<storage, read_write> dvalues: array<f32>;
@group(0) @binding(8) var<uniform> kl_control: KlControl;

// The estimate, and its derivative with respect to q.
fn divergence(q: f32) -> vec2<f32> {
    if (params.kl_estimator == 2u) {
        return vec2<f32>(0.5 * q * q, q);
    }
    if (params.kl_estimator == 3u) {
        return vec2<f32>(exp_excess(-q), -exp_minus_one(-q));
    }
    return vec2<f32>(q, 1.0);
}

// Writes the target's gradient with respect to its value; loss and whether it was clipped.
fn value_loss(n: u32, old: Experience) -> vec2<f32> {
    let value = bounded(values[n]);
    let before = bounded(old.value);
    let clipped = clamp(value, before - params.value_range, before + params.value_range);
    let error = difference(value, old.returns);
    let clipped_error = difference(clipped, old.returns);
    let is_clipped = clipped_error * clipped_error > error * error;
    let scale = pair_scale(params.value_scale);
    dvalues[n] = select(scale * params.vf_coef * error, 0.0, is_clipped);
    let larger = select(error, clipped_error, is_clipped);
    return vec2<f32>(scale * 0.5 * larger * larger, select(0.0, 1.0, is_clipped));
}

// Adds the target's policy loss to its figures and writes its gradient.
fn policy_loss(n: u32, now: TokenLogprob, old: Experience, figures: ptr<function, Figures>) {
    let scale = target_scale(params.target_scale) * old.weight;
    let log_ratio = difference(now.logprob, old.logprob);
    let clip = Clip(
        params.ratio_low, params.ratio_high, 0.0,
        params.log_low, params.log_high, 4.0 * LARGEST,
    );
    let clipped = surrogate(log_ratio, bounded(old.advantage), clip);
    let q = difference(now.logprob, old.ref_logprob);
    let kl = divergence(q);
    let kl_coef = params.kl_factor * kl_control.kl_coef;
    let entropy = bounded(now.entropy);
    let loss = scale * (clipped.loss + kl_coef * kl.x - params.entropy_coef * entropy);
    gradients[n] = TokenGradient(
        scale * (clipped.slope + kl_coef * kl.y),
        -scale * params.entropy_coef,
    );
    let ratio = bounded_exp(log_ratio);
    let kl_held = select(0.0, is_held(-q), params.kl_estimator == 3u);
    (*figures)[0] += vec4<f32>(loss, scale * clipped.loss, 0.0, entropy);
    (*figures)[1] = vec4<f32>(-log_ratio, 0.5 * log_ratio * log_ratio, exp_excess(log_ratio), kl.x);
    (*figures)[2] = vec4<f32>(ratio, ratio, clipped.clipped_low, clipped.clipped_high);
    (*figures)[3].y = 1.0;
    (*figures)[3].w = is_held(log_ratio) + kl_held;
}

fn has_bad(now: TokenLogprob, old: Experience, loss: f32) -> bool {
    return !(is_finite(now.logprob) && is_finite(now.entropy) && is_finite(old.logprob)
        && is_finite(old.ref_logprob) && is_finite(old.advantage) && is_finite(loss));
}

@compute @workgroup_size(64)
fn ppo_loss(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let workgroup = linear_workgroup(group, groups);
    let count = live(params.targets, params.targets_count);
    if (workgroup * 64u >= count) {
        return;
    }
    let n = workgroup * 64u + local;
    var figures = Figures();
    figures[2].x = LARGEST_RATIO;
    if (n < count) {
        let now = logprobs[n];
        let old = experience[n];
        let value = value_loss(n, old);
        figures[0] = vec4<f32>(params.vf_coef * value.x, 0.0, value.x, 0.0);
        figures[3].x = value.y;
        var bad = !(is_finite(values[n]) && is_finite(old.value) && is_finite(old.returns));
        if (old.weight != 0.0) {
            policy_loss(n, now, old, &figures);
            bad = bad || has_bad(now, old, figures[0].x);
        } else {
            gradients[n] = TokenGradient(0.0, 0.0);
        }
        figures[3].z = select(0.0, 1.0, bad);
    }
    write_workgroup_figures(workgroup, figures, local);
}
