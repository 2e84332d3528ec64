// A row of logits as a distribution: the one place where probabilities of tokens are worked out.
//
//   p = softmax(z / T), T the temperature;  m the column of the greatest logit
//   d_v = (z_v - z_m) / T,  rest = sum over v != m of exp(d_v),  weighted = sum of exp(d_v) d_v
//   ln p_v = d_v - ln(1 + rest),  mean = weighted / (1 + rest)
//   entropy = ln(1 + rest) - mean,  ln sum exp(z / T) = z_m / T + ln(1 + rest)
//
// With dlogprob and dentropy the gradients of ln p_token and of the entropy:
//
//   dz_v = (dlogprob (1[v = token] - p_v) - dentropy p_v (ln p_v + entropy)) / T,
//   ln p_v + entropy = d_v - mean
//
// Only differences of logits are divided by T, so that large logits cost no digits. The greatest
// logit is left out of the sums, so that the logarithm and 1 - p of a confident prediction, rest /
// (1 + rest), keep theirs. Rows are read four logits at a time and in one pass.
//
// `logits` are an operand. A kernel declares `params` with `vocab` and `stride`, and `inverse_temperature`.
//
// Source: online sums Milakov & Gimelshein 2018 (arXiv 1805.02867, algorithm 3).
struct Target {
    row: u32,
    token: u32,
    answer: u32,
    weight: f32,
}

struct TokenGradient {
    dlogprob: f32,
    dentropy: f32,
}

@group(0) @binding(2) var<storage, read> targets: array<Target>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4<f32>>;

// Below every logit, and finite when divided by the smallest temperature.
const LOWEST: f32 = -1e30;

// The greatest logit of some columns, and the sums over the others.
struct Sums {
    max: f32,
    rest: f32,
    weighted: f32,
}

// A row's sums, and the logit of the target's token.
struct Row {
    sums: Sums,
    own: f32,
}

fn no_sums() -> Sums {
    return Sums(LOWEST, 0.0, 0.0);
}

// Differences are taken before the maximum is known to be one, so that what is not a number stays.
fn merge(a: Sums, b: Sums) -> Sums {
    let d = -abs(a.max - b.max) * inverse_temperature();
    let e = exp(d);
    let first = a.max >= b.max;
    let high = select(b.rest, a.rest, first);
    let low = 1.0 + select(a.rest, b.rest, first);
    let high_weighted = select(b.weighted, a.weighted, first);
    let low_weighted = select(a.weighted, b.weighted, first);
    return Sums(
        max(a.max, b.max),
        high + e * low,
        high_weighted + e * (low_weighted + d * low),
    );
}

// Adds the four logits from column `col` on, less what is past the row's end.
fn add_fours(sums: Sums, z: vec4<f32>, col: u32) -> Sums {
    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
    let x = select(vec4<f32>(LOWEST), z, cols < vec4<u32>(params.vocab));
    let high = max(x.xy, x.zw);
    let d = -abs(x.xy - x.zw) * inverse_temperature();
    let e = exp(d);
    let pairs = merge(Sums(high.x, e.x, e.x * d.x), Sums(high.y, e.y, e.y * d.y));
    return merge(sums, pairs);
}

fn logit(row: u32, token: u32) -> f32 {
    return logits[(row * params.stride + token) / 4u][token % 4u];
}

fn row_logprob(row: Row) -> f32 {
    return (row.own - row.sums.max) * inverse_temperature() - log1p(row.sums.rest);
}

fn row_entropy(sums: Sums) -> f32 {
    return log1p(sums.rest) - sums.weighted / (1.0 + sums.rest);
}

fn row_log_sum_exp(sums: Sums) -> f32 {
    return sums.max * inverse_temperature() + log1p(sums.rest);
}

// The gradient of four logits; columns past the row's end get something that is not used.
fn row_gradient(
    row: Row, z: vec4<f32>, col: u32, token: u32, incoming: TokenGradient,
) -> vec4<f32> {
    let total = 1.0 + row.sums.rest;
    let own = exp((row.own - row.sums.max) * inverse_temperature());
    let against = select(total - own, row.sums.rest, row.own >= row.sums.max);
    let d = (z - row.sums.max) * inverse_temperature();
    let e = exp(d);
    let flattening = incoming.dentropy * (d - row.sums.weighted / total) * e;
    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
    let hit = cols == vec4<u32>(token);
    let sharpening = incoming.dlogprob * select(-e, vec4<f32>(against), hit);
    return (sharpening - flattening) * (inverse_temperature() / total);
}
