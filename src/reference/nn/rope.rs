//! Rotary position embedding (Su et al. 2021, arXiv 2104.09864, section 3.4.2), in Hugging Face's
//! half-rotated layout: elements `i` and `i + D/2` of a head are a pair.

use super::attention::Heads;

/// Turns the query and key heads of `qkv` `[T, (H + 2G) D]`: with `c` and `s` the cosine and sine
/// of `positions[t] inverse_frequencies[i]`, both times `scale`,
/// `y[i] = x[i] c - x[i + D/2] s` and `y[i + D/2] = x[i + D/2] c + x[i] s`. Values stay as they are.
///
/// `positions` is `[T]`, `inverse_frequencies` `[D/2]`.
pub fn rope_forward(
    qkv: &[f64],
    positions: &[u32],
    heads: Heads,
    inverse_frequencies: &[f64],
    scale: f64,
) -> Vec<f64> {
    turn(qkv, positions, heads, |position, i| {
        let (sin, cos) = (f64::from(position) * inverse_frequencies[i]).sin_cos();
        (scale * cos, scale * sin)
    })
}

/// Backward of [`rope_forward`] from `dout` `[T, (H + 2G) D]`: the transpose of each turn, which
/// has the opposite angle and the same scale.
pub fn rope_backward(
    dout: &[f64],
    positions: &[u32],
    heads: Heads,
    inverse_frequencies: &[f64],
    scale: f64,
) -> Vec<f64> {
    turn(dout, positions, heads, |position, i| {
        let (sin, cos) = (f64::from(position) * inverse_frequencies[i]).sin_cos();
        (scale * cos, -scale * sin)
    })
}

/// Turns pair `i` of each query and key head by the `(cosine, sine)` of a row's position and `i`.
fn turn(
    rows: &[f64],
    positions: &[u32],
    heads: Heads,
    by: impl Fn(u32, usize) -> (f64, f64),
) -> Vec<f64> {
    assert_eq!(rows.len(), positions.len() * heads.qkv_width(), "rows");
    let half = heads.width / 2;
    let turned = (heads.query + heads.key_value) * heads.width;
    let mut out = rows.to_vec();
    for (row, &position) in out.chunks_exact_mut(heads.qkv_width()).zip(positions) {
        for head in row[..turned].chunks_exact_mut(heads.width) {
            for i in 0..half {
                let (c, s) = by(position, i);
                let (x, y) = (head[i], head[i + half]);
                head[i] = x * c - y * s;
                head[i + half] = y * c + x * s;
            }
        }
    }
    out
}
