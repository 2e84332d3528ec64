// Functions that WGSL lacks, written without infinities and without comparing what is not a number.

// The exponent bits of infinities and of what is not a number are all ones.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u;
}

// ln(1 + x) for x >= 0, to about 2e-7 of the result for every x.
//
// Up to 1 by ln(1 + x) = 2 artanh(s), s = x / (2 + x) <= 1/3, whose series
// 2 s (1 + s^2/3 + s^4/5 + ...) is cut where the rest is below 2e-9.
fn log1p(x: f32) -> f32 {
    if (x > 1.0) {
        return log(1.0 + x);
    }
    let s = x / (2.0 + x);
    let q = s * s;
    let tail = q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0
        + q * (1.0 / 11.0 + q * (1.0 / 13.0 + q * (1.0 / 15.0)))))));
    return 2.0 * (s + s * tail);
}

// ln(1 / (1 + exp(-x))) = min(x, 0) - ln(1 + exp(-|x|))
fn log_sigmoid(x: f32) -> f32 {
    return min(x, 0.0) - log1p(exp(-abs(x)));
}

// 1 / (1 + exp(-x)), with an exponential of at most 1
fn sigmoid(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}
