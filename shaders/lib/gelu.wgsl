// GELU in its tanh form ("gelu_new"; Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2):
//   gelu(x) = x/2 (1 + tanh u) = x / (1 + exp(-2u)),  u = sqrt(2/pi) (x + 0.044715 x^3)
// Beyond |x| = 20 the sigmoid is 0 or 1 to f32, so u is taken of the clamped x; the exponent is
// bounded so that no infinity arises.
const GELU_SCALE: f32 = 0.7978845608028654;
const GELU_CUBIC: f32 = 0.044715;

fn gelu_exp(c: f32) -> f32 {
    return exp(min(-2.0 * GELU_SCALE * (c + GELU_CUBIC * c * c * c), 80.0));
}

fn gelu(x: f32) -> f32 {
    return x / (1.0 + gelu_exp(clamp(x, -20.0, 20.0)));
}

// s + 2 x u' s (1 - s) with s the sigmoid of 2u; 1 - s is e s, which keeps its digits.
fn gelu_derivative(x: f32) -> f32 {
    let c = clamp(x, -20.0, 20.0);
    let e = gelu_exp(c);
    let s = 1.0 / (1.0 + e);
    let du = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * c * c);
    return s + 2.0 * c * du * s * (e * s);
}
