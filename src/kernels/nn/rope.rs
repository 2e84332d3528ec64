//! Rotary position embedding: `shaders/nn/rope.wgsl`.

use super::attention::Heads;
use crate::gpu::{
    Binding, Const, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, load_buffer, operand};
use crate::kernels::{DISPATCH, Size, expect_shape, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.rope", "nn/rope.wgsl", Core);

/// Positions of the table's first level; each row of the second stands for as many.
pub const FINE: usize = 256;

const OP: &str = "nn.rope";
const OPERANDS: [&Operand; 2] = [
    operand!("table", 3),
    &Operand {
        slot: 4,
        buffer: Lib {
            name: "lib.operand.qkv.own",
            text: load_buffer!("qkv", "vec2<f32>"),
        },
        staged: *lib!("lib.rope_staged", "rope_staged.wgsl"),
        copy_slot: Some(5),
    },
];
const THREADS: usize = 256;

/// Sizes of [`rope`].
#[derive(Debug, Clone, Copy)]
pub struct RopeSizes {
    /// Packed rows.
    pub rows: Size,
    /// The heads.
    pub heads: Heads,
}

/// The tensors of [`rope`].
#[derive(Debug, Clone, Copy)]
pub struct RopeIo<'a> {
    /// (rows, (H + 2G) D): queries and keys are turned in place, values left as they are.
    pub qkv: &'a Tensor,
    /// (rows) u32, each below the number of positions that the table was made for.
    pub positions: &'a Tensor,
    /// (FINE + coarse, D): the values of [`rope_table`].
    pub table: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// Which way [`rope`] turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the positions' angles: the embedding.
    Forward,
    /// By the opposite angles, with the same scale: the transpose, which makes the gradient of the
    /// unturned values of that of the turned ones.
    Backward,
}

device_struct! {
    struct RopeParams {
        rows: u32,
        rows_count: u32,
        heads: u32,
        half: u32,
        stride: u32,
        sign: f32,
        pad: [u32; 2],
    }
}

/// The table of [`rope`] for positions below `positions`, (FINE + ⌈positions / FINE⌉, D), row after
/// row.
///
/// `inverse_frequencies` are the D/2 angles, in radians, from one position to the next; `scale` is
/// a factor on all cosines and sines. A row holds turns as pairs (cos, sin), in the order of the
/// frequencies: row `b < FINE` those of position `b`, row `FINE + a` those of position `FINE a`
/// times `scale`. Two levels keep the table small where contexts are long, and angles, which are
/// taken in `f64`, exact.
pub fn rope_table(inverse_frequencies: &[f64], scale: f64, positions: usize) -> Vec<f32> {
    let turns = |position: usize, scale: f64| {
        inverse_frequencies.iter().flat_map(move |frequency| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            [(scale * cos) as f32, (scale * sin) as f32]
        })
    };
    let fine = (0..FINE).flat_map(|position| turns(position, 1.0));
    let coarse = (0..positions.div_ceil(FINE)).flat_map(|a| turns(FINE * a, scale));
    fine.chain(coarse).collect()
}

/// Appends the turn of each live row's query and key heads by its position, in place: elements
/// `i` and `i + D/2` of a head become `x c - y s` and `y c + x s`, with `c` and `s` the cosine and
/// sine of `position * inverse_frequencies[i]` times the scale (Su et al. 2021, arXiv 2104.09864,
/// section 3.4.2, in Hugging Face's half-rotated layout).
///
/// # Errors
///
/// [`Error::Shape`] for heads that are not supported and shapes that do not agree, and what
/// [`Plan::push`] refuses.
pub fn rope(plan: &mut Plan, io: &RopeIo<'_>, sizes: &RopeSizes, turn: Turn) -> Result<()> {
    let RopeSizes { rows, heads } = *sizes;
    heads.check(OP)?;
    let (capacity, width, stride) = (rows.capacity, heads.width, heads.qkv_width());
    expect_shape::<f32>(OP, "qkv", io.qkv, &[capacity, stride])?;
    expect_shape::<u32>(OP, "positions", io.positions, &[capacity])?;
    let table_rows = io.table.shape().first().copied().unwrap_or(0);
    expect_shape::<f32>(OP, "table", io.table, &[table_rows, width])?;
    if table_rows <= FINE {
        return Err(Error::shape(
            OP,
            format!(
                "table is `{}` {:?}, expected more than {FINE} rows, those of `rope_table`",
                io.table.label(),
                io.table.shape()
            ),
        ));
    }
    to_u32(OP, io.qkv.len())?;
    let turned = heads.query + heads.key_value;
    let params = RopeParams {
        rows: rows.capacity_u32(OP)?,
        rows_count: rows.field(),
        heads: to_u32(OP, turned)?,
        half: to_u32(OP, width / 4)?,
        stride: to_u32(OP, stride / 2)?,
        sign: match turn {
            Turn::Forward => 1.0,
            Turn::Backward => -1.0,
        },
        pad: [0; 2],
    };
    let (live, counts) = live_lib(OP, &[rows], io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.positions),
        Binding::read(3, io.table),
        Binding::write(4, io.qkv),
    ];
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, true);
    libs.extend([DISPATCH, live]);
    let elements = capacity * turned * width;
    plan.push(&Dispatch {
        label: match turn {
            Turn::Forward => "nn.rope_forward",
            Turn::Backward => "nn.rope_backward",
        },
        shader: &SHADER,
        variant: Variant {
            entry: "rope",
            libs: &libs,
            consts: &[("FINE", Const::U32(FINE as u32))],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (elements / 4).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: 6 * elements as u64,
            bytes: 8 * elements as u64,
        },
    })
}
