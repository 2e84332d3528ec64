//! Causal grouped-query attention over a packed run with shared prefixes: `shaders/nn/attention*`.

use super::attention_tiled::{BACKWARD_DKV_TILED, BACKWARD_DQ_TILED, FORWARD_TILED, Pass, Shape};
use crate::data::batch::{Segment, TILE_ROWS, Tile};
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Gpu, Lib, MatmulDesign, Params, Plan, Shader, Tensor, Tiling,
    Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{DISPATCH, Size, expect_shape, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// Output and log-sum-exp.
pub const FORWARD: Shader = shader!("nn.attention", "nn/attention.wgsl", Core);
/// Gradient of the queries.
pub const BACKWARD_DQ: Shader = shader!("nn.attention_dq", "nn/attention_dq.wgsl", Core);
/// Gradients of the keys and values.
pub const BACKWARD_DKV: Shader = shader!("nn.attention_dkv", "nn/attention_dkv.wgsl", Core);
/// [`FORWARD`] by broadcasts inside subgroups.
pub const FORWARD_SUBGROUP: Shader = shader!(
    "nn.attention_subgroup",
    "nn/attention_subgroup.wgsl",
    Subgroups
);
/// [`BACKWARD_DQ`] by broadcasts inside subgroups.
pub const BACKWARD_DQ_SUBGROUP: Shader = shader!(
    "nn.attention_dq_subgroup",
    "nn/attention_dq_subgroup.wgsl",
    Subgroups
);
/// [`BACKWARD_DKV`] by broadcasts inside subgroups.
pub const BACKWARD_DKV_SUBGROUP: Shader = shader!(
    "nn.attention_dkv_subgroup",
    "nn/attention_dkv_subgroup.wgsl",
    Subgroups
);

/// The widest head.
pub const MAX_HEAD_WIDTH: usize = 128;

const OP: &str = "nn.attention";
const COMMON: &Lib = lib!("lib.attention", "attention.wgsl");
const QKV: &Operand = operand!("qkv", 2);
/// The gradient of the output, where the queries' gradient and where the keys' reads it.
const DOUT_DQ: &Operand = operand!("dout", 6);
const DOUT_DKV: &Operand = operand!("dout", 5);
const OUT: &Operand = operand!("out", 5);
const BROADCAST: &Lib = lib!("lib.broadcast", "broadcast.wgsl");
/// Keys or rows that a thread takes in one iteration of its loop.
const STEP: usize = 4;
/// Mesa's software driver before version 25 leaves a thread's loops silently after 65,535
/// iterations in total.
const SOFTWARE_ITERATIONS: usize = 60_000;

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads H.
    pub query: usize,
    /// Key/value heads G, which divides H: query head h uses key/value head h / (H / G).
    pub key_value: usize,
    /// Width D of a head: a multiple of 4, at most [`MAX_HEAD_WIDTH`].
    pub width: usize,
}

impl Heads {
    /// Width of a row of `qkv`: query heads, then key heads, then value heads.
    pub fn qkv_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.width
    }

    /// Width of a row of `out`.
    pub fn out_width(&self) -> usize {
        self.query * self.width
    }

    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        if self.key_value == 0 || self.query == 0 || !self.query.is_multiple_of(self.key_value) {
            return Err(Error::shape(
                op,
                format!(
                    "{} query heads can't share {} key/value heads: use a multiple of them",
                    self.query, self.key_value
                ),
            ));
        }
        if self.width == 0 || !self.width.is_multiple_of(4) || self.width > MAX_HEAD_WIDTH {
            return Err(Error::shape(
                op,
                format!(
                    "heads are {} wide: multiples of 4 from 4 to {MAX_HEAD_WIDTH} are supported",
                    self.width
                ),
            ));
        }
        Ok(())
    }
}

/// Sizes of an attention layer.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSizes {
    /// Packed rows T, at capacity.
    pub tokens: usize,
    /// Entries of the work list: at most `tokens.div_ceil(32) + segments`, live by
    /// [`Count::Tiles`](crate::kernels::Count::Tiles).
    pub tiles: Size,
    /// The heads.
    pub heads: Heads,
    /// Visible pairs of a row and a key at capacity, for the plan's account of costs only: of
    /// known segments [`visible_pairs`]; where only the context is known, `tokens * context / 2`
    /// is close to the most there can be.
    pub attended: u64,
}

/// How many pairs of a row and a key, one head, attention over these segments computes.
pub fn visible_pairs(segments: &[Segment]) -> u64 {
    segments
        .iter()
        .map(|segment| {
            let (len, prefix) = (u64::from(segment.len), u64::from(segment.prefix_len));
            len * prefix + len * (len + 1) / 2
        })
        .sum()
}

/// The tensors of [`attention_forward`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionForwardIo<'a> {
    /// (T, (H + 2G) D), read.
    pub qkv: &'a Tensor,
    /// (S) of [`Segment`], read.
    pub segments: &'a Tensor,
    /// (tiles) of [`Tile`], read.
    pub tiles: &'a Tensor,
    /// The batch's counts, where the number of tiles is live.
    pub counts: Option<&'a Tensor>,
    /// (T, H D), written.
    pub out: &'a Tensor,
    /// (T, H), written: log-sum-exp of each row's scaled scores.
    pub lse: &'a Tensor,
}

/// The tensors of [`attention_backward`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionBackwardIo<'a> {
    /// (T, (H + 2G) D), read.
    pub qkv: &'a Tensor,
    /// (S) of [`Segment`], read.
    pub segments: &'a Tensor,
    /// (tiles) of [`Tile`], read.
    pub tiles: &'a Tensor,
    /// The batch's counts, where the number of tiles is live.
    pub counts: Option<&'a Tensor>,
    /// (T, H D), read: what the forward wrote.
    pub out: &'a Tensor,
    /// (T, H), read: what the forward wrote.
    pub lse: &'a Tensor,
    /// (T, H D), read: the gradient of `out`.
    pub dout: &'a Tensor,
    /// (T, H), written: `dout · out` of each row and head.
    pub delta: &'a Tensor,
    /// (T, (H + 2G) D), written: the gradient of `qkv`.
    pub dqkv: &'a Tensor,
}

device_struct! {
    struct AttentionParams {
        tiles: u32,
        tiles_count: u32,
        heads: u32,
        kv_heads: u32,
        scale: f32,
        pad: [u32; 3],
    }
}

impl AttentionParams {
    fn new(sizes: &AttentionSizes) -> Result<Self> {
        Ok(Self {
            tiles: sizes.tiles.capacity_u32(OP)?,
            tiles_count: sizes.tiles.field(),
            heads: to_u32(OP, sizes.heads.query)?,
            kv_heads: to_u32(OP, sizes.heads.key_value)?,
            scale: (1.0 / (sizes.heads.width as f64).sqrt()) as f32,
            pad: [0; 3],
        })
    }
}

/// Appends `out = softmax(q kᵀ / √D) v` and its log-sum-exp.
///
/// Row t of a segment attends to the segment's prefix `[prefix_start, +prefix_len)` and to
/// `[start, t]`. Rows of no live tile are not written. The softmax is computed online, in f32; no
/// buffer grows with T².
///
/// Attention: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1; grouped queries: Ainslie et al.
/// 2023, arXiv 2305.13245, section 2.2; online softmax: Milakov & Gimelshein 2018, arXiv
/// 1805.02867, section 3; shared prefixes: arXiv 2410.20305.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit `sizes`, for widths that are no multiple of 4 or
/// above [`MAX_HEAD_WIDTH`]; [`Error::Limit`] on a software driver where a thread's loop could
/// exceed what old versions run; and what [`Plan::push`] refuses.
pub fn attention_forward(
    plan: &mut Plan,
    io: &AttentionForwardIo<'_>,
    sizes: &AttentionSizes,
) -> Result<()> {
    let heads = sizes.heads;
    heads.check(OP)?;
    check_inputs(io.qkv, io.segments, io.tiles, sizes)?;
    expect_rows(sizes.tokens, &[(io.out, "out", heads.out_width())])?;
    expect_rows(sizes.tokens, &[(io.lse, "lse", heads.query)])?;
    check_iterations(plan.gpu(), sizes.tokens)?;
    push(
        plan,
        sizes,
        &Kernel {
            label: "nn.attention_forward",
            shaders: [&FORWARD, &FORWARD_SUBGROUP, &FORWARD_TILED],
            entries: ["attention", "attention_subgroup", "attention_tiled"],
            pass: Pass::Forward,
            groups: heads.query,
            products: 2,
            operands: &[QKV],
        },
        io.counts,
        &[
            Binding::read(2, io.qkv),
            Binding::read(3, io.segments),
            Binding::read(4, io.tiles),
            Binding::write(5, io.out),
            Binding::write(6, io.lse),
        ],
        &[io.qkv, io.out, io.lse],
    )
}

/// Appends the gradient of `qkv` for the gradient `dout` of `out`; also `delta = dout · out`.
///
/// Two dispatches, recomputing the weights from the log-sum-exp: the first writes `delta` and the
/// query columns of `dqkv`, the second its key and value columns. A key that several segments or
/// query heads see sums over them in order, without atomics: the same inputs give the same bits.
/// Rows of no live tile are not written.
///
/// Dao et al. 2022, arXiv 2205.14135, appendix B.2 and algorithm 4.
///
/// # Errors
///
/// As [`attention_forward`].
pub fn attention_backward(
    plan: &mut Plan,
    io: &AttentionBackwardIo<'_>,
    sizes: &AttentionSizes,
) -> Result<()> {
    let heads = sizes.heads;
    heads.check(OP)?;
    check_inputs(io.qkv, io.segments, io.tiles, sizes)?;
    expect_rows(
        sizes.tokens,
        &[
            (io.out, "out", heads.out_width()),
            (io.dout, "dout", heads.out_width()),
            (io.lse, "lse", heads.query),
            (io.delta, "delta", heads.query),
            (io.dqkv, "dqkv", heads.qkv_width()),
        ],
    )?;
    let group = heads.query / heads.key_value;
    check_iterations(plan.gpu(), sizes.tokens * group)?;
    push(
        plan,
        sizes,
        &Kernel {
            label: "nn.attention_backward_dq",
            shaders: [&BACKWARD_DQ, &BACKWARD_DQ_SUBGROUP, &BACKWARD_DQ_TILED],
            entries: [
                "attention_dq",
                "attention_dq_subgroup",
                "attention_dq_tiled",
            ],
            pass: Pass::Backward,
            groups: heads.query,
            products: 3,
            operands: &[QKV, OUT, DOUT_DQ],
        },
        io.counts,
        &[
            Binding::read(2, io.qkv),
            Binding::read(3, io.segments),
            Binding::read(4, io.tiles),
            Binding::read(5, io.out),
            Binding::read(6, io.dout),
            Binding::read(7, io.lse),
            Binding::write(8, io.delta),
            Binding::write(9, io.dqkv),
        ],
        // The query columns of dqkv are as large as dout.
        &[io.qkv, io.out, io.dout, io.dout, io.lse, io.delta],
    )?;
    push(
        plan,
        sizes,
        &Kernel {
            label: "nn.attention_backward_dkv",
            shaders: [&BACKWARD_DKV, &BACKWARD_DKV_SUBGROUP, &BACKWARD_DKV_TILED],
            entries: [
                "attention_dkv",
                "attention_dkv_subgroup",
                "attention_dkv_tiled",
            ],
            pass: Pass::Backward,
            groups: heads.key_value,
            products: 4,
            operands: &[QKV, DOUT_DKV],
        },
        io.counts,
        &[
            Binding::read(2, io.qkv),
            Binding::read(3, io.segments),
            Binding::read(4, io.tiles),
            Binding::read(5, io.dout),
            Binding::read(6, io.lse),
            Binding::read(7, io.delta),
            Binding::write(8, io.dqkv),
        ],
        &[io.qkv, io.dqkv, io.dout, io.lse, io.delta],
    )
}

/// One of the three kernels.
struct Kernel {
    label: &'static str,
    /// By uniform loads, by broadcasts, through workgroup memory.
    shaders: [&'static Shader; 3],
    entries: [&'static str; 3],
    pass: Pass,
    /// Workgroups a tile.
    groups: usize,
    /// Products of width D for each visible pair and query head.
    products: u64,
    /// What the form by broadcasts reads through operands.
    operands: &'static [&'static Operand],
}

/// How the three kernels go about it.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// A row a thread, whose neighbours load the same keys: for where the others cannot run.
    Uniform,
    /// A row a thread; keys are loaded lane by lane and broadcast inside subgroups.
    Broadcast,
    /// Blocks of rows and keys in workgroup memory.
    Tiled(Shape),
}

impl Form {
    /// As the matrix products: software drivers load lane by lane, so there one load and eight
    /// broadcasts beat eight loads that all lanes share (4 to 5 times, both ways, with heads of 64
    /// on Mesa 22.3), and GPUs are quickest at workgroup memory.
    fn of(gpu: &Gpu, kernel: &Kernel, sizes: &AttentionSizes) -> Self {
        let whole_tiles = sizes.tiles.capacity * kernel.groups;
        let tiled = |tiling| Shape::of(gpu, tiling, kernel.pass, sizes.heads.width, whole_tiles);
        match gpu.matmul_design() {
            MatmulDesign::Subgroup | MatmulDesign::Staged if gpu.subgroups() => Self::Broadcast,
            MatmulDesign::Tiled(tiling) => tiled(tiling).map_or(Self::Uniform, Self::Tiled),
            MatmulDesign::Cooperative => tiled(Tiling::BySize).map_or(Self::Uniform, Self::Tiled),
            _ => Self::Uniform,
        }
    }

    /// Where its shader stands in a [`Kernel`].
    fn index(self) -> usize {
        match self {
            Self::Uniform => 0,
            Self::Broadcast => 1,
            Self::Tiled(_) => 2,
        }
    }
}

fn push(
    plan: &mut Plan,
    sizes: &AttentionSizes,
    kernel: &Kernel,
    counts: Option<&Tensor>,
    bindings: &[Binding<'_>],
    moved: &[&Tensor],
) -> Result<()> {
    let heads = sizes.heads;
    let params = AttentionParams::new(sizes)?;
    let (live, counts) = live_lib(OP, &[sizes.tiles], counts)?;
    let mut bindings: Vec<Binding<'_>> = bindings.iter().copied().chain(counts).collect();
    let mut libs = vec![DISPATCH, live, COMMON];
    let mut consts = vec![("WIDTH4", Const::U32(to_u32(OP, heads.width / 4)?))];
    let mut parts = 1;
    let form = Form::of(plan.gpu(), kernel, sizes);
    match form {
        Form::Uniform => {}
        Form::Broadcast => {
            libs.push(BROADCAST);
            let operands = kernel.operands;
            libs.extend(bind_operands(plan.gpu(), operands, &mut bindings, true));
        }
        Form::Tiled(shape) => {
            libs.extend(kernel.pass.libs());
            consts = shape.consts(plan.gpu(), OP, heads.width)?;
            parts = shape.parts();
        }
    }
    plan.push(&Dispatch {
        label: kernel.label,
        shader: kernel.shaders[form.index()],
        variant: Variant {
            entry: kernel.entries[form.index()],
            libs: &libs,
            consts: &consts,
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (sizes.tiles.capacity * parts * kernel.groups) as u64,
        cost: Cost {
            flops: 2 * kernel.products * heads.out_width() as u64 * sizes.attended,
            bytes: moved.iter().map(|tensor| tensor.bytes()).sum(),
        },
    })
}

fn check_inputs(
    qkv: &Tensor,
    segments: &Tensor,
    tiles: &Tensor,
    sizes: &AttentionSizes,
) -> Result<()> {
    expect_rows(sizes.tokens, &[(qkv, "qkv", sizes.heads.qkv_width())])?;
    // Kernels count four elements at a time in 32 bits.
    to_u32(OP, qkv.len())?;
    expect_shape::<Segment>(OP, "segments", segments, &[segments.len()])?;
    expect_shape::<Tile>(OP, "tiles", tiles, &[sizes.tiles.capacity])
}

fn expect_rows(rows: usize, tensors: &[(&Tensor, &str, usize)]) -> Result<()> {
    tensors.iter().try_for_each(|&(tensor, name, width)| {
        expect_shape::<f32>(OP, name, tensor, &[rows, width])
    })
}

/// Refuses what an old software driver would silently compute wrong, of threads that walk over that
/// many rows.
fn check_iterations(gpu: &Gpu, rows: usize) -> Result<()> {
    let iterations = match gpu.matmul_design() {
        // Inner loops count: up to 71 iterations for a block of 16 rows.
        MatmulDesign::Tiled(_) => 5 * rows,
        _ => rows.div_ceil(STEP),
    };
    if gpu.is_software() && iterations > SOFTWARE_ITERATIONS {
        return Err(Error::Limit {
            what: "loop of nn.attention".into(),
            needed: iterations as u64,
            limit_name: "iterations of a thread on a software driver",
            limit: SOFTWARE_ITERATIONS as u64,
            hint: "pack fewer tokens into a batch, or run on a GPU",
        });
    }
    Ok(())
}

const _: () = assert!(TILE_ROWS == 32, "the kernels' workgroups have 32 threads");
