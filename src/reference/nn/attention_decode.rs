//! Attention of one token a sequence to a cache of keys and values.

use super::attention::Heads;
use super::cross_entropy::log_sum_exp;
use super::dot;

/// Where a sequence's keys lie in the cache: first those of its prompt, then its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// First row of the prompt.
    pub prefix_start: usize,
    /// Rows of the prompt.
    pub prefix_len: usize,
    /// First row of its own.
    pub start: usize,
    /// Rows of its own.
    pub len: usize,
}

impl Sequence {
    fn rows(&self) -> impl Iterator<Item = usize> + Clone {
        let prefix = self.prefix_start..self.prefix_start + self.prefix_len;
        prefix.chain(self.start..self.start + self.len)
    }
}

/// `out = softmax(q Kᵀ / √D) V`, `[B, H D]`, over the rows of `cache` `[rows, 2 G D]` (key heads,
/// then value heads) that each sequence sees; `qkv` is `[B, (H + 2G) D]`, of which the query heads
/// are read.
///
/// Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1; grouped key/value heads: Ainslie et al.
/// 2023, arXiv 2305.13245.
pub fn attention_decode(
    qkv: &[f64],
    cache: &[f64],
    sequences: &[Sequence],
    heads: Heads,
) -> Vec<f64> {
    let (width, stride) = (heads.width, 2 * heads.key_value * heads.width);
    let mut out = vec![0.0; sequences.len() * heads.query * width];
    for (b, sequence) in sequences.iter().enumerate() {
        for h in 0..heads.query {
            let query = &qkv[b * heads.qkv_width() + h * width..][..width];
            let key = h / (heads.query / heads.key_value) * width;
            let value = key + heads.key_value * width;
            let scores: Vec<f64> = sequence
                .rows()
                .map(|row| {
                    dot(query, &cache[row * stride + key..][..width]) / (width as f64).sqrt()
                })
                .collect();
            let lse = log_sum_exp(&scores);
            let out = &mut out[(b * heads.query + h) * width..][..width];
            for (row, score) in sequence.rows().zip(scores) {
                for (out, v) in out.iter_mut().zip(&cache[row * stride + value..]) {
                    *out += (score - lse).exp() * v;
                }
            }
        }
    }
    out
}
