// What both forms of the token log-probability kernel declare.
struct Params {
    rows: u32,
    targets_count: u32,
    start: u32,
    vocab: u32,
    stride: u32,
    inverse_temperature: f32,
}

struct TokenLogprob {
    logprob: f32,
    entropy: f32,
    lse: f32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read_write> logprobs: array<TokenLogprob>;
@group(0) @binding(5) var<storage, read> gradients: array<TokenGradient>;

fn inverse_temperature() -> f32 {
    return params.inverse_temperature;
}

fn row_figures(row: Row) -> TokenLogprob {
    return TokenLogprob(
        row_logprob(row), row_entropy(row.sums), row_log_sum_exp(row.sums), 0u,
    );
}
