//! Causal attention over a packed run with shared prefixes.
//!
//! Scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1) with
//! grouped key/value heads (Ainslie et al. 2023, arXiv 2305.13245) and prompts shared between the
//! answers that follow them (prefix sharing, arXiv 2410.20305).
//!
//! `qkv` is `[T, (H + 2G) D]`: each row holds `H` query heads, then `G` key heads, then `G` value
//! heads, of width `D`. Query head `h` reads key/value head `h / (H / G)`. A row of a segment
//! attends to the segment's prefix rows and to the segment's own rows up to itself.

use super::dot;

/// A run of rows that belong together, and the earlier rows that all of them attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First row of the segment.
    pub start: u32,
    /// Number of its rows.
    pub len: u32,
    /// First row of its prefix.
    pub prefix_start: u32,
    /// Number of prefix rows; 0 for none.
    pub prefix_len: u32,
}

impl Segment {
    /// A sequence of its own: no prefix.
    pub fn alone(start: u32, len: u32) -> Self {
        Self {
            start,
            len,
            prefix_start: 0,
            prefix_len: 0,
        }
    }

    fn rows(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    /// The rows that `row` of this segment attends to, in order.
    fn keys(&self, row: usize) -> impl Iterator<Item = usize> + use<> {
        let prefix = self.prefix_start as usize..(self.prefix_start + self.prefix_len) as usize;
        prefix.chain(self.start as usize..row + 1)
    }
}

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads `H`.
    pub query: usize,
    /// Key/value heads `G`; divides `H`.
    pub key_value: usize,
    /// Width `D` of a head.
    pub width: usize,
}

impl Heads {
    /// Width of a row of `qkv`: `(H + 2G) D`.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.width
    }

    /// Offsets of the query, key and value heads that query head `h` works with, in a row's `qkv`.
    fn offsets(&self, h: usize) -> [usize; 3] {
        let shared = h / (self.query / self.key_value);
        [h, self.query + shared, self.query + self.key_value + shared].map(|head| head * self.width)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.width as f64).sqrt()
    }
}

/// What [`attention_forward`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Output, `[T, H D]`; rows in no segment are zero.
    pub out: Vec<f64>,
    /// `ln Σ_j exp(s_j)` over a row's scaled scores, `[T, H]`; rows in no segment are zero.
    pub lse: Vec<f64>,
}

/// `out = Σ_j p_j v_j` with `p_j = exp(s_j - lse)`, `s_j = q·k_j / √D`, over the keys of each row.
pub fn attention_forward(qkv: &[f64], segments: &[Segment], heads: Heads) -> Attention {
    let rows = row_count(qkv, heads);
    let mut out = vec![0.0; rows * heads.query * heads.width];
    let mut lse = vec![0.0; rows * heads.query];
    for segment in segments {
        for row in segment.rows() {
            for h in 0..heads.query {
                let [_, _, v] = heads.offsets(h);
                let (p, row_lse) = probabilities(qkv, segment, heads, row, h);
                lse[row * heads.query + h] = row_lse;
                for (key, p) in segment.keys(row).zip(p) {
                    for d in 0..heads.width {
                        out[(row * heads.query + h) * heads.width + d] +=
                            p * qkv[key * heads.qkv_width() + v + d];
                    }
                }
            }
        }
    }
    Attention { out, lse }
}

/// Backward of [`attention_forward`]: `dqkv` `[T, (H + 2G) D]` from `dout` `[T, H D]`.
///
/// With `dp_j = dout·v_j` and `ds_j = p_j (dp_j - Σ_i p_i dp_i)`, for each row and head:
/// `dq = Σ_j ds_j k_j / √D`, `dk_j += ds_j q / √D`, `dv_j += p_j dout`. Keys and values that
/// several query heads or several segments share sum the gradients of all of them.
pub fn attention_backward(
    qkv: &[f64],
    segments: &[Segment],
    heads: Heads,
    dout: &[f64],
) -> Vec<f64> {
    let rows = row_count(qkv, heads);
    let (stride, width) = (heads.qkv_width(), heads.width);
    assert_eq!(dout.len(), rows * heads.query * width, "dout is [T, H D]");
    let mut dqkv = vec![0.0; qkv.len()];
    for segment in segments {
        for row in segment.rows() {
            for h in 0..heads.query {
                let [q, k, v] = heads.offsets(h);
                let (p, _) = probabilities(qkv, segment, heads, row, h);
                let dout = &dout[(row * heads.query + h) * width..][..width];
                let dp: Vec<f64> = segment
                    .keys(row)
                    .map(|key| dot(dout, &qkv[key * stride + v..][..width]))
                    .collect();
                let mean_dp = dot(&p, &dp);
                for (j, key) in segment.keys(row).enumerate() {
                    let ds = heads.scale() * p[j] * (dp[j] - mean_dp);
                    for d in 0..width {
                        dqkv[row * stride + q + d] += ds * qkv[key * stride + k + d];
                        dqkv[key * stride + k + d] += ds * qkv[row * stride + q + d];
                        dqkv[key * stride + v + d] += p[j] * dout[d];
                    }
                }
            }
        }
    }
    dqkv
}

/// Attention probabilities of one row and query head over its keys, and their log-sum-exp.
fn probabilities(
    qkv: &[f64],
    segment: &Segment,
    heads: Heads,
    row: usize,
    h: usize,
) -> (Vec<f64>, f64) {
    let (stride, width) = (heads.qkv_width(), heads.width);
    let [q, k, _] = heads.offsets(h);
    let query = &qkv[row * stride + q..][..width];
    let scores: Vec<f64> = segment
        .keys(row)
        .map(|key| heads.scale() * dot(query, &qkv[key * stride + k..][..width]))
        .collect();
    let lse = super::cross_entropy::log_sum_exp(&scores);
    (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
}

fn row_count(qkv: &[f64], heads: Heads) -> usize {
    assert_eq!(heads.query % heads.key_value, 0, "G divides H");
    assert_eq!(qkv.len() % heads.qkv_width(), 0, "qkv is [T, (H + 2G) D]");
    qkv.len() / heads.qkv_width()
}
