// What both forms of the cross-entropy kernel share: parameters, and the work on one row of logits.
//
// A row is read four logits at a time. The target's own logit is left out of the running maximum
// and sum, so that 1 - p of a confident prediction keeps its digits:
//
//   rest = sum over v != token of exp(z_v - max),  own = exp(z_token - max),  p = exp(z - max) / (rest + own)
//   ln p_token = -ln(1 + rest) where token has the maximum, else z_token - max - ln(rest + own)
//   dz_v = factor p_v,  dz_token = -factor rest / (rest + own)
struct Params {
    rows: u32,
    targets_count: u32,
    start: u32,
    vocab: u32,
    stride: u32,
    target_scale: f32,
}

struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

const LOWEST: f32 = -3.4028234e38;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> targets: array<Target>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> logprobs: array<f32>;

// A maximum and the sum of exponentials below it.
struct Sum {
    max: f32,
    rest: f32,
}

// Adds the four logits from column `col` on, less the target's own and what is past the row's end.
fn add_fours(sum: Sum, z: vec4<f32>, col: u32, token: u32) -> Sum {
    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
    let counted = (cols < vec4<u32>(params.vocab)) & (cols != vec4<u32>(token));
    let x = select(vec4<f32>(LOWEST), z, counted);
    let highest = max(sum.max, max(max(x.x, x.y), max(x.z, x.w)));
    let terms = select(vec4<f32>(0.0), exp(x - highest), counted);
    return Sum(highest, sum.rest * exp(sum.max - highest) + dot(terms, vec4<f32>(1.0)));
}

fn merge(a: Sum, b: Sum) -> Sum {
    let highest = max(a.max, b.max);
    return Sum(highest, a.rest * exp(a.max - highest) + b.rest * exp(b.max - highest));
}

fn logit(row: u32, token: u32) -> f32 {
    return logits[(row * params.stride + token) / 4u][token % 4u];
}

// The log-probability of a logit beside the sum over all others.
fn logprob(others: Sum, own: f32) -> f32 {
    if (own >= others.max) {
        return -log1p(others.rest * exp(others.max - own));
    }
    return own - others.max - log(others.rest + exp(own - others.max));
}

// The gradient of four logits; columns past the row's end get something that is not used.
fn gradient(z: vec4<f32>, col: u32, token: u32, others: Sum, own: f32, factor: f32) -> vec4<f32> {
    let highest = max(others.max, own);
    let rest = others.rest * exp(others.max - highest);
    let scale = factor / (rest + exp(own - highest));
    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(exp(z - highest) * scale, vec4<f32>(-rest * scale), cols == vec4<u32>(token));
}
