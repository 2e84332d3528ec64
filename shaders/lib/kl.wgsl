// Estimates of the KL divergence from the reference by one sampled token, of
// l = logprob - ref_logprob (Schulman 2020, "Approximating KL divergence"):
//   K1 = l,  K2 = l^2 / 2,  K3 = exp(-l) - 1 + l
const KL_K1: u32 = 1u;
const KL_K2: u32 = 2u;

// exp(x) is taken of no more than this, so that K3 stays finite.
const KL_LARGEST_EXPONENT: f32 = 60.0;

fn kl_estimate(l: f32, estimator: u32) -> f32 {
    if (estimator == KL_K1) {
        return l;
    }
    if (estimator == KL_K2) {
        return 0.5 * l * l;
    }
    return exp_beyond_linear(-l);
}

// exp(x) - 1 - x: near 0 by its series, whose terms past x^9 are below 1e-9 of the sum, since the
// difference would have lost its digits.
fn exp_beyond_linear(x: f32) -> f32 {
    if (abs(x) > 0.5) {
        return exp(min(x, KL_LARGEST_EXPONENT)) - 1.0 - x;
    }
    let tail = 1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0 * (1.0 + x / 9.0)));
    return 0.5 * x * x * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * tail)));
}
