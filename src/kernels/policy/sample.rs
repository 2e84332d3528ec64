//! Draws the next token of each sequence: `shaders/policy/sample.wgsl`.

use crate::gpu::{
    Binding, Const, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::nn::attention_decode::Sequence;
use crate::kernels::nn::copy_rows::RowCopy;
use crate::kernels::{DISPATCH, SEQUENCE, Size, expect_shape, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("policy.sample", "policy/sample.wgsl", Core);

const RANDOM: &Lib = lib!("lib.random", "random.wgsl");
const OP: &str = "policy.sample";

device_struct! {
    /// How tokens are drawn; the host writes it between two generations.
    pub struct SampleSettings {
        /// Divides the logits; above 0.
        pub temperature: f32,
        /// How much of the probability is kept, in (0, 1]; 1: all.
        pub top_p: f32,
        /// How many tokens are kept; 0, or as many as there are: all.
        pub top_k: u32,
        /// Not 0: the first of the largest logits is taken.
        pub greedy: u32,
        /// The length at which a sequence is finished.
        pub max_new_tokens: u32,
        /// The lower half of the seed.
        pub seed_low: u32,
        /// The upper half.
        pub seed_high: u32,
        /// Zero.
        pub pad: u32,
    }
}

device_struct! {
    /// A token that was drawn.
    pub struct Sampled {
        /// The token.
        pub token: u32,
        /// Its log-probability under the whole vocabulary at the temperature.
        pub logprob: f32,
        /// Its log-probability among the tokens that were kept.
        pub sampling_logprob: f32,
        /// Zero.
        pub pad: u32,
    }
}

/// The tensors of [`sample`].
#[derive(Debug, Clone, Copy)]
pub struct SampleIo<'a> {
    /// (1) [`SampleSettings`], read.
    pub settings: &'a Tensor,
    /// (B, V rounded up to a multiple of 4), read.
    pub logits: &'a Tensor,
    /// (V / 32 rounded up) u32, read: bit `token % 32` of word `token / 32` is set where the token
    /// ends a sequence.
    pub stops: &'a Tensor,
    /// (B) [`Sequence`], read and written: `len` and `finished`.
    pub sequences: &'a Tensor,
    /// (B) u32, written: the token.
    pub tokens: &'a Tensor,
    /// (B) u32, written: its position.
    pub positions: &'a Tensor,
    /// (B) [`RowCopy`], written: from row b to the cache's row of that token.
    pub appends: &'a Tensor,
    /// (B, most tokens) [`Sampled`], written at the sequence's length.
    pub sampled: &'a Tensor,
    /// The batch's counts, where the number of sequences is live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct SampleParams {
        rows: u32,
        rows_count: u32,
        vocab: u32,
        stride: u32,
        new_tokens: u32,
        pad: [u32; 3],
    }
}

/// Appends the draw of one token for each live sequence that has not finished, from a row of
/// logits over `vocab` tokens each, and moves the sequence on: its length, whether it finished,
/// and what the next row is. A replay of a decoding step thus needs nothing from the host.
///
/// Temperature, then top-k, then top-p (Fan et al. 2018, arXiv 1805.04833, section 5.4; Holtzman
/// et al. 2020, arXiv 1904.09751, section 3.1); equals of the last token kept are kept. The random
/// number is that of [`crate::reference::random::sampling_uniform`] for the seed, the sequence's
/// id and its length. A sequence whose logits are not finite stays as it is.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn sample(plan: &mut Plan, io: &SampleIo<'_>, sequences: Size, vocab: usize) -> Result<()> {
    let batch = sequences.capacity;
    let [_, new_tokens] = *io.sampled.shape() else {
        return Err(Error::shape(OP, "sampled must be a matrix"));
    };
    if vocab == 0 {
        return Err(Error::shape(OP, "the vocabulary is empty"));
    }
    let stride = vocab.next_multiple_of(4);
    expect_shape::<SampleSettings>(OP, "settings", io.settings, &[1])?;
    expect_shape::<f32>(OP, "logits", io.logits, &[batch, stride])?;
    expect_shape::<u32>(OP, "stops", io.stops, &[vocab.div_ceil(32)])?;
    expect_shape::<Sequence>(OP, "sequences", io.sequences, &[batch])?;
    expect_shape::<u32>(OP, "tokens", io.tokens, &[batch])?;
    expect_shape::<u32>(OP, "positions", io.positions, &[batch])?;
    expect_shape::<RowCopy>(OP, "appends", io.appends, &[batch])?;
    expect_shape::<Sampled>(OP, "sampled", io.sampled, &[batch, new_tokens])?;
    for tensor in [io.logits, io.sampled] {
        to_u32(OP, tensor.len())?;
    }
    let params = SampleParams {
        rows: sequences.capacity_u32(OP)?,
        rows_count: sequences.field(),
        vocab: to_u32(OP, vocab)?,
        stride: to_u32(OP, stride)?,
        new_tokens: to_u32(OP, new_tokens)?,
        pad: [0; 3],
    };
    let (live, counts) = live_lib(OP, &[sequences], io.counts)?;
    let mut bindings = vec![
        Binding::uniform(2, io.settings),
        Binding::read(3, io.logits),
        Binding::read(4, io.stops),
        Binding::write(5, io.sequences),
        Binding::write(6, io.tokens),
        Binding::write(7, io.positions),
        Binding::write(8, io.appends),
        Binding::write(9, io.sampled),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "sample",
            libs: &[DISPATCH, live, SEQUENCE, RANDOM],
            consts: &[("GROUP", Const::U32(threads_root(vocab)))],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: batch as u64,
        cost: Cost {
            flops: 4 * (batch * vocab) as u64,
            bytes: io.logits.bytes(),
        },
    })
}

/// The root of the number of threads that share a row: each looks at four logits a turn.
fn threads_root(vocab: usize) -> u32 {
    match vocab {
        0..=256 => 4,
        257..=2048 => 8,
        _ => 16,
    }
}
