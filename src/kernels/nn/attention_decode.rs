//! Attention of one token a sequence to a cache of keys and values:
//! `shaders/nn/attention_decode.wgsl`, and its form for subgroups.

use super::attention::Heads;
use crate::Result;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Gpu, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::{DISPATCH, SEQUENCE, Size, expect_shape, lib, live_lib, shader, to_u32};

/// A sequence and head a workgroup.
pub const SHADER: Shader = shader!("nn.attention_decode", "nn/attention_decode.wgsl", Core);
/// A sequence and head eight lanes.
pub const SUBGROUP: Shader = shader!(
    "nn.attention_decode_subgroup",
    "nn/attention_decode_subgroup.wgsl",
    Subgroups
);

const COMMON: &Lib = lib!("lib.attention_decode", "attention_decode.wgsl");
const OP: &str = "nn.attention_decode";
/// Sequences and heads of a workgroup of the form for subgroups.
const ITEMS: usize = 8;

device_struct! {
    /// A sequence that is being generated: where its keys and values lie in the cache, and how far
    /// it is.
    pub struct Sequence {
        /// The first row of its prompt in the cache.
        pub prefix_start: u32,
        /// Rows of its prompt.
        pub prefix_len: u32,
        /// The first row of its own in the cache.
        pub start: u32,
        /// Tokens drawn so far, and so, where the last of them is being worked on, rows of its own.
        pub len: u32,
        /// 0: running, 1: drew a stop token, 2: reached the limit.
        pub finished: u32,
        /// The lower half of the number that, with the seed, chooses its random numbers.
        pub id_low: u32,
        /// The upper half.
        pub id_high: u32,
        /// Zero.
        pub pad: u32,
    }
}

/// The tensors of [`attention_decode`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionDecodeIo<'a> {
    /// (B, (H + 2G) D), of which the queries are read.
    pub qkv: &'a Tensor,
    /// (rows, 2 G D), read: key heads, then value heads.
    pub cache: &'a Tensor,
    /// (B) [`Sequence`], read; each sees one row at least.
    pub sequences: &'a Tensor,
    /// (B, H D), written.
    pub out: &'a Tensor,
    /// The batch's counts, where the number of sequences is live.
    pub counts: Option<&'a Tensor>,
}

/// Sizes of [`attention_decode`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionDecodeSizes {
    /// Sequences B.
    pub sequences: Size,
    /// The heads.
    pub heads: Heads,
    /// Rows that a sequence sees, for the plan's account of costs only.
    pub context: usize,
}

device_struct! {
    struct AttentionDecodeParams {
        rows: u32,
        rows_count: u32,
        heads: u32,
        kv_heads: u32,
        scale: f32,
        pad: [u32; 3],
    }
}

/// Appends `out = softmax(q Kᵀ / √D) V` for one row a sequence, over the cache's rows
/// `[prefix_start, +prefix_len)` and `[start, +len)` of that sequence.
///
/// Nothing is kept of the scores: the softmax is computed online, in f32. A sequence's result does
/// not depend on what is computed beside it.
///
/// Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1; Ainslie et al. 2023, arXiv 2305.13245,
/// section 2.2; Milakov & Gimelshein 2018, arXiv 1805.02867, section 3.
///
/// # Errors
///
/// [`crate::Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn attention_decode(
    plan: &mut Plan,
    io: &AttentionDecodeIo<'_>,
    sizes: &AttentionDecodeSizes,
) -> Result<()> {
    let (heads, batch) = (sizes.heads, sizes.sequences.capacity);
    heads.check(OP)?;
    expect_shape::<f32>(OP, "qkv", io.qkv, &[batch, heads.qkv_width()])?;
    expect_shape::<f32>(OP, "out", io.out, &[batch, heads.out_width()])?;
    expect_shape::<Sequence>(OP, "sequences", io.sequences, &[batch])?;
    let cache_width = 2 * heads.key_value * heads.width;
    let cache_rows = io.cache.len() / cache_width;
    expect_shape::<f32>(OP, "cache", io.cache, &[cache_rows, cache_width])?;
    for tensor in [io.qkv, io.cache] {
        to_u32(OP, tensor.len())?;
    }
    let params = AttentionDecodeParams {
        rows: sizes.sequences.capacity_u32(OP)?,
        rows_count: sizes.sequences.field(),
        heads: to_u32(OP, heads.query)?,
        kv_heads: to_u32(OP, heads.key_value)?,
        scale: (1.0 / (heads.width as f64).sqrt()) as f32,
        pad: [0; 3],
    };
    let (live, counts) = live_lib(OP, &[sizes.sequences], io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.qkv),
        Binding::read(3, io.cache),
        Binding::read(4, io.sequences),
        Binding::write(5, io.out),
    ];
    bindings.extend(counts);
    let items = batch * heads.query;
    let (shader, entry, workgroups) = if by_broadcast(plan.gpu()) {
        (
            &SUBGROUP,
            "attention_decode_subgroup",
            items.div_ceil(ITEMS),
        )
    } else {
        (&SHADER, "attention_decode", items)
    };
    let seen = (batch * sizes.context) as u64;
    plan.push(&Dispatch {
        label: OP,
        shader,
        variant: Variant {
            entry,
            libs: &[DISPATCH, live, SEQUENCE, COMMON],
            consts: &[("WIDTH4", Const::U32(to_u32(OP, heads.width / 4)?))],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: workgroups as u64,
        cost: Cost {
            flops: 4 * heads.out_width() as u64 * seen,
            bytes: 4 * cache_width as u64 * seen + io.qkv.bytes() + io.out.bytes(),
        },
    })
}

/// Software drivers load lane by lane, so there one load and broadcasts beat loads that all lanes
/// share. GPUs fetch such a load once.
fn by_broadcast(gpu: &Gpu) -> bool {
    gpu.subgroups() && gpu.is_software()
}
