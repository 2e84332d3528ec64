//! The gated activation of a feed-forward layer, SwiGLU: `shaders/nn/swiglu.wgsl`.

use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{DISPATCH, Size, columns_lib, expect_shape, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.swiglu", "nn/swiglu.wgsl", Core);

const OP: &str = "nn.swiglu";
const OPERANDS: [&Operand; 2] = [
    operand!("gate_up", 2, "Columns"),
    operand!("dy", 4, "Columns"),
];
const ITEMS_A_WORKGROUP: usize = 1024;

/// The tensors of [`swiglu_forward`].
#[derive(Debug, Clone, Copy)]
pub struct SwigluIo<'a> {
    /// (rows, 2I): the columns of the gates, then those that they let through.
    pub gate_up: &'a Tensor,
    /// (rows, I), written.
    pub y: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`swiglu_backward`].
#[derive(Debug, Clone, Copy)]
pub struct SwigluBackwardIo<'a> {
    /// (rows, 2I): the forward's input.
    pub gate_up: &'a Tensor,
    /// (rows, I): gradient of y.
    pub dy: &'a Tensor,
    /// (rows, 2I): gradient of gate_up, written.
    pub dgate_up: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct SwigluParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        pad: u32,
    }
}

/// Appends `y = silu(gate) up` with `silu(g) = g / (1 + exp(-g))` (Shazeer 2020, arXiv 2002.05202,
/// equation 6), element by element; no gate is too large.
///
/// Rows past the live ones are not written.
///
/// # Errors
///
/// [`Error::Shape`] for shapes that do not agree, and what [`Plan::push`] refuses.
pub fn swiglu_forward(plan: &mut Plan, io: &SwigluIo<'_>, rows: Size) -> Result<()> {
    let columns = columns_of(io.gate_up)?;
    expect_shape::<f32>(OP, "gate_up", io.gate_up, &[rows.capacity, 2 * columns])?;
    expect_shape::<f32>(OP, "y", io.y, &[rows.capacity, columns])?;
    let bindings = [Binding::read(2, io.gate_up), Binding::write(3, io.y)];
    let elements = io.y.len() as u64;
    let dispatch = Half {
        label: "nn.swiglu_forward",
        entry: "swiglu_forward",
        bindings: &bindings,
        cost: Cost {
            flops: 6 * elements,
            bytes: 12 * elements,
        },
    };
    dispatch.push(plan, io.counts, rows, columns)
}

/// Appends `dgate = dy up silu'(gate)` and `dup = dy silu(gate)`, element by element.
///
/// Rows past the live ones are not written.
///
/// # Errors
///
/// As [`swiglu_forward`].
pub fn swiglu_backward(plan: &mut Plan, io: &SwigluBackwardIo<'_>, rows: Size) -> Result<()> {
    let columns = columns_of(io.gate_up)?;
    expect_shape::<f32>(OP, "gate_up", io.gate_up, &[rows.capacity, 2 * columns])?;
    expect_shape::<f32>(OP, "dy", io.dy, &[rows.capacity, columns])?;
    expect_shape::<f32>(OP, "dgate_up", io.dgate_up, &[rows.capacity, 2 * columns])?;
    let bindings = [
        Binding::read(2, io.gate_up),
        Binding::read(4, io.dy),
        Binding::write(5, io.dgate_up),
    ];
    let elements = io.dy.len() as u64;
    let dispatch = Half {
        label: "nn.swiglu_backward",
        entry: "swiglu_backward",
        bindings: &bindings,
        cost: Cost {
            flops: 13 * elements,
            bytes: 20 * elements,
        },
    };
    dispatch.push(plan, io.counts, rows, columns)
}

/// I, of a tensor with 2I columns.
fn columns_of(gate_up: &Tensor) -> Result<usize> {
    match *gate_up.shape() {
        [_, columns] if columns.is_multiple_of(2) => Ok(columns / 2),
        _ => Err(Error::shape(
            OP,
            format!(
                "gate_up is `{}` {:?}, expected (rows, 2I)",
                gate_up.label(),
                gate_up.shape()
            ),
        )),
    }
}

/// What differs between the two directions.
struct Half<'a> {
    label: &'static str,
    entry: &'static str,
    bindings: &'a [Binding<'a>],
    cost: Cost,
}

impl Half<'_> {
    fn push(
        &self,
        plan: &mut Plan,
        counts: Option<&Tensor>,
        rows: Size,
        columns: usize,
    ) -> Result<()> {
        to_u32(OP, rows.capacity.saturating_mul(2 * columns))?;
        let params = SwigluParams {
            rows: rows.capacity_u32(OP)?,
            rows_count: rows.field(),
            columns: to_u32(OP, columns)?,
            pad: 0,
        };
        let (live, counts) = live_lib(OP, &[rows], counts)?;
        let (access, groups) = columns_lib(columns);
        let mut bindings = self.bindings.to_vec();
        bindings.extend(counts);
        let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < columns);
        libs.extend([DISPATCH, live, access]);
        plan.push(&Dispatch {
            label: self.label,
            shader: &SHADER,
            variant: Variant {
                entry: self.entry,
                libs: &libs,
                consts: &[],
            },
            params: Params::of(&params),
            bindings: &bindings,
            workgroups: (rows.capacity * groups).div_ceil(ITEMS_A_WORKGROUP) as u64,
            cost: self.cost,
        })
    }
}
