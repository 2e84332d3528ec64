// What both forms of the cross-entropy kernel declare.
struct Params {
    rows: u32,
    targets_count: u32,
    start: u32,
    vocab: u32,
    stride: u32,
    target_scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read_write> logprobs: array<f32>;

fn inverse_temperature() -> f32 {
    return 1.0;
}

fn incoming(weight: f32) -> TokenGradient {
    return TokenGradient(-target_scale(params.target_scale) * weight, 0.0);
}
