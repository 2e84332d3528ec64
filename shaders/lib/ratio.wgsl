// Probability ratios and divergences from log-probabilities, finite for every finite input. Needs
// `exp_beyond_linear` of kl.wgsl.
//
// Inputs are held within +-LARGEST, so that squares and sums of a million squares stay finite.
// Exponents are held at LARGEST_EXPONENT from above: products of two exponentials, a bounded
// advantage and a sum stay finite as well. Derivatives keep the value that they have there.
const LARGEST: f32 = 1e15;
const LARGEST_EXPONENT: f32 = 30.0;
// exp(LARGEST_EXPONENT): no ratio is larger.
const LARGEST_RATIO: f32 = 1.0686474581524463e13;

fn bounded(x: f32) -> f32 {
    return clamp(x, -LARGEST, LARGEST);
}

fn difference(a: f32, b: f32) -> f32 {
    return bounded(a) - bounded(b);
}

fn bounded_exp(x: f32) -> f32 {
    return exp(min(x, LARGEST_EXPONENT));
}

// 1 where bounded_exp and exp_excess hold their exponent, else 0.
fn is_held(x: f32) -> f32 {
    return select(0.0, 1.0, x > LARGEST_EXPONENT);
}

// exp(x) - 1 - x
fn exp_excess(x: f32) -> f32 {
    return exp_beyond_linear(min(x, LARGEST_EXPONENT));
}

// exp(x) - 1
fn exp_minus_one(x: f32) -> f32 {
    return min(x, LARGEST_EXPONENT) + exp_excess(x);
}

// The interval in which a ratio may move, and the logarithms of its ends.
struct Clip {
    low: f32,
    high: f32,
    delta: f32,
    log_low: f32,
    log_high: f32,
    log_delta: f32,
}

struct Surrogate {
    loss: f32,
    // Derivative with respect to the logarithm of the ratio.
    slope: f32,
    clipped_low: f32,
    clipped_high: f32,
}

// -min(min(ratio, delta) advantage, clamp(ratio, low, high) advantage), delta > high.
//
// The logarithm is compared, so that no exponential decides. Where both terms are equal the
// gradient is that of the ratio itself: at a ratio of 1 and at both ends of the interval.
fn surrogate(log_ratio: f32, advantage: f32, clip: Clip) -> Surrogate {
    if (advantage > 0.0 && log_ratio > clip.log_high) {
        return Surrogate(-advantage * clip.high, 0.0, 0.0, 1.0);
    }
    if (advantage < 0.0 && log_ratio < clip.log_low) {
        return Surrogate(-advantage * clip.low, 0.0, 1.0, 0.0);
    }
    if (advantage < 0.0 && log_ratio > clip.log_delta) {
        return Surrogate(-advantage * clip.delta, 0.0, 0.0, 0.0);
    }
    let weighted = -advantage * bounded_exp(log_ratio);
    return Surrogate(weighted, weighted, 0.0, 0.0);
}
