//! GELU in its tanh form: `shaders/nn/gelu.wgsl`.

use crate::gpu::{
    Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::operand::{Operand, bind_operands, operand};
use crate::kernels::{DISPATCH, Size, columns_lib, expect_shape, lib, live_lib, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.gelu", "nn/gelu.wgsl", Core);

const OP: &str = "nn.gelu";
const OPERANDS: [&Operand; 2] = [operand!("x", 2, "Columns"), operand!("dy", 4, "Columns")];
const ITEMS_A_WORKGROUP: usize = 1024;
const GELU: &Lib = lib!("lib.gelu", "gelu.wgsl");
const GELU_VEC4: &Lib = lib!("lib.gelu_vec4", "gelu_vec4.wgsl");
const GELU_SCALAR: &Lib = lib!("lib.gelu_scalar", "gelu_scalar.wgsl");

/// The tensors of [`gelu_forward`].
#[derive(Debug, Clone, Copy)]
pub struct GeluIo<'a> {
    /// (rows, C)
    pub x: &'a Tensor,
    /// (rows, C), written.
    pub y: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

/// The tensors of [`gelu_backward`].
#[derive(Debug, Clone, Copy)]
pub struct GeluBackwardIo<'a> {
    /// (rows, C): the forward's input.
    pub x: &'a Tensor,
    /// (rows, C): gradient of y.
    pub dy: &'a Tensor,
    /// (rows, C): gradient of x, written.
    pub dx: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct GeluParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        pad: u32,
    }
}

/// Appends `y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`, element by element.
///
/// Rows past the live ones are not written.
///
/// # Errors
///
/// [`Error::Shape`] for shapes that do not agree, and what [`Plan::push`] refuses.
pub fn gelu_forward(plan: &mut Plan, io: &GeluIo<'_>, rows: Size) -> Result<()> {
    let columns = columns_of(io.x)?;
    expect_shape::<f32>(OP, "x", io.x, &[rows.capacity, columns])?;
    expect_shape::<f32>(OP, "y", io.y, &[rows.capacity, columns])?;
    let bindings = [Binding::read(2, io.x), Binding::write(3, io.y)];
    let elements = io.x.len() as u64;
    let cost = Cost {
        flops: 12 * elements,
        bytes: 8 * elements,
    };
    push(
        plan,
        ENTRIES[0],
        &bindings,
        io.counts,
        (rows, columns),
        cost,
    )
}

/// Appends `dx = dy gelu'(x)`, element by element.
///
/// Rows past the live ones are not written.
///
/// # Errors
///
/// As [`gelu_forward`].
pub fn gelu_backward(plan: &mut Plan, io: &GeluBackwardIo<'_>, rows: Size) -> Result<()> {
    let columns = columns_of(io.x)?;
    expect_shape::<f32>(OP, "x", io.x, &[rows.capacity, columns])?;
    expect_shape::<f32>(OP, "dy", io.dy, &[rows.capacity, columns])?;
    expect_shape::<f32>(OP, "dx", io.dx, &[rows.capacity, columns])?;
    let bindings = [
        Binding::read(2, io.x),
        Binding::read(4, io.dy),
        Binding::write(5, io.dx),
    ];
    let elements = io.x.len() as u64;
    let cost = Cost {
        flops: 24 * elements,
        bytes: 12 * elements,
    };
    push(
        plan,
        ENTRIES[1],
        &bindings,
        io.counts,
        (rows, columns),
        cost,
    )
}

/// Label and entry point of the forward and of the backward.
const ENTRIES: [(&str, &str); 2] = [
    ("nn.gelu_forward", "gelu_forward"),
    ("nn.gelu_backward", "gelu_backward"),
];

fn columns_of(x: &Tensor) -> Result<usize> {
    match *x.shape() {
        [_, columns] => Ok(columns),
        _ => Err(Error::shape(
            OP,
            format!("x is `{}` {:?}, expected (rows, C)", x.label(), x.shape()),
        )),
    }
}

fn push(
    plan: &mut Plan,
    (label, entry): (&'static str, &str),
    bindings: &[Binding<'_>],
    counts: Option<&Tensor>,
    (rows, columns): (Size, usize),
    cost: Cost,
) -> Result<()> {
    to_u32(OP, rows.capacity.saturating_mul(columns))?;
    let params = GeluParams {
        rows: rows.capacity_u32(OP)?,
        rows_count: rows.field(),
        columns: to_u32(OP, columns)?,
        pad: 0,
    };
    let (live, counts) = live_lib(OP, &[rows], counts)?;
    let (access, groups) = columns_lib(columns);
    let of_columns = if groups < columns {
        GELU_VEC4
    } else {
        GELU_SCALAR
    };
    let mut bindings = bindings.to_vec();
    bindings.extend(counts);
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, groups < columns);
    libs.extend([DISPATCH, live, access, GELU, of_columns]);
    plan.push(&Dispatch {
        label,
        shader: &SHADER,
        variant: Variant {
            entry,
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (rows.capacity * groups).div_ceil(ITEMS_A_WORKGROUP) as u64,
        cost,
    })
}
