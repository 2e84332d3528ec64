//! Copies of rows by a table: `shaders/nn/copy_rows.wgsl`.

use crate::gpu::{
    Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::{
    DISPATCH, SEQUENCE, Size, columns_lib, expect_shape, live_lib, shader, to_u32,
};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("nn.copy_rows", "nn/copy_rows.wgsl", Core);

const OP: &str = "nn.copy_rows";
const THREADS: usize = 64;

device_struct! {
    /// A row to be copied.
    pub struct RowCopy {
        /// Row of the tensor that is read.
        pub source: u32,
        /// Row of the tensor that is written.
        pub destination: u32,
    }
}

/// The tensors of [`copy_rows`].
#[derive(Debug, Clone, Copy)]
pub struct CopyRowsIo<'a> {
    /// (R, W), read.
    pub rows: &'a Tensor,
    /// The first column that is copied.
    pub column: usize,
    /// (N) [`RowCopy`], read; no two live ones have one destination.
    pub copies: &'a Tensor,
    /// (M, width), written in the destinations of the live copies.
    pub out: &'a Tensor,
    /// The batch's counts, where the number of copies is live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct CopyRowsParams {
        copies: u32,
        copies_count: u32,
        stride: u32,
        column: u32,
        width: u32,
        pad: [u32; 3],
    }
}

/// Appends `out[copy.destination] = rows[copy.source, column..column + width]` for the live copies.
///
/// So keys and values are put into a cache: of rows of `qkv`, (R, (H + 2G) D), the columns from
/// H D on, 2 G D wide.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn copy_rows(plan: &mut Plan, io: &CopyRowsIo<'_>, copies: Size) -> Result<()> {
    let ([_, stride], [_, width]) = (matrix(io.rows)?, matrix(io.out)?);
    expect_shape::<RowCopy>(OP, "copies", io.copies, &[copies.capacity])?;
    if width == 0 || io.column + width > stride {
        let detail = format!(
            "columns {}..{} of `{}` {:?}",
            io.column,
            io.column + width,
            io.rows.label(),
            io.rows.shape()
        );
        return Err(Error::shape(OP, detail));
    }
    let aligned = [stride, io.column, width].iter().all(|n| n % 4 == 0);
    let (access, groups) = columns_lib(if aligned { width } else { 1 });
    let groups = if aligned { groups } else { width };
    for tensor in [io.rows, io.out] {
        to_u32(OP, tensor.len())?;
    }
    let params = CopyRowsParams {
        copies: copies.capacity_u32(OP)?,
        copies_count: copies.field(),
        stride: to_u32(OP, stride)?,
        column: to_u32(OP, io.column)?,
        width: to_u32(OP, width)?,
        pad: [0; 3],
    };
    let (live, counts) = live_lib(OP, &[copies], io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.rows),
        Binding::read(3, io.copies),
        Binding::write(4, io.out),
    ];
    bindings.extend(counts);
    let libs: &[&Lib] = &[DISPATCH, live, SEQUENCE, access];
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "copy_rows",
            libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (copies.capacity * groups).div_ceil(THREADS) as u64,
        cost: Cost {
            flops: 0,
            bytes: 8 * (copies.capacity * width) as u64,
        },
    })
}

fn matrix(tensor: &Tensor) -> Result<[usize; 2]> {
    tensor.expect_element::<f32>()?;
    <[usize; 2]>::try_from(tensor.shape()).map_err(|_| {
        let detail = format!("`{}` {:?} is no matrix", tensor.label(), tensor.shape());
        Error::shape(OP, detail)
    })
}
