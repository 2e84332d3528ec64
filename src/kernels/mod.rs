//! The kernels, by the folders and stems of `shaders/`.
//!
//! Each kernel has a function that checks shapes and appends labelled dispatches to a
//! [`Plan`](crate::Plan); nothing is submitted or read back in there. Tensors are passed by name
//! in a struct that ends in `Io`.

mod metrics;
pub mod nn;
mod operand;
pub mod optim;
pub mod policy;
pub mod preference;
pub mod reduce;

pub use metrics::METRICS;

use crate::gpu::{Binding, Gpu, Lib, Tensor};
use crate::{Error, Result};

macro_rules! lib {
    ($name:literal, $path:literal) => {
        &crate::gpu::Lib {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/lib/", $path)),
        }
    };
}
pub(crate) use lib;

macro_rules! shader {
    ($name:literal, $path:literal, $capability:ident) => {
        crate::gpu::Shader::new(
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path)),
            crate::gpu::Capability::$capability,
        )
    };
}
pub(crate) use shader;

/// How kernels number workgroups that the host folds over three dimensions.
pub(crate) const DISPATCH: &Lib = lib!("lib.dispatch", "dispatch.wgsl");
/// Accurate logarithms and the like.
pub(crate) const NUMERICS: &Lib = lib!("lib.numerics", "numerics.wgsl");
/// Sequences that are being generated, and copies of rows.
pub(crate) const SEQUENCE: &Lib = lib!("lib.sequence", "sequence.wgsl");
const LIVE_FIXED: &Lib = lib!("lib.live_fixed", "live_fixed.wgsl");
const LIVE_COUNTS: &Lib = lib!("lib.live_counts", "live_counts.wgsl");

const COLUMNS_VEC4: &Lib = lib!("lib.columns_vec4", "columns_vec4.wgsl");
const COLUMNS_SCALAR: &Lib = lib!("lib.columns_scalar", "columns_scalar.wgsl");
/// The second of two passes over chunks of rows.
pub(crate) const CHUNK_SUMS: &Lib = lib!("lib.chunk_sums", "chunk_sums.wgsl");
/// That pass by several threads a column.
pub(crate) const CHUNK_LANES: &Lib = lib!("lib.chunk_lanes", "chunk_lanes.wgsl");
/// Threads of a column in [`CHUNK_LANES`]. Software drivers are slow at what threads share; a GPU
/// waits long for a thread that sums alone.
pub(crate) fn chunk_sum_lanes(gpu: &Gpu) -> u32 {
    if gpu.is_software() { 1 } else { 8 }
}

/// Columns of a workgroup of [`CHUNK_LANES`], which has 64 threads.
pub(crate) fn chunk_sum_columns(gpu: &Gpu) -> usize {
    64 / chunk_sum_lanes(gpu) as usize
}

/// Rows of one chunk of [`CHUNK_SUMS`].
pub(crate) const CHUNK_ROWS: usize = 32;

/// How rows of `width` elements are accessed, and how many groups of columns that makes: of four
/// where the width allows it, of one otherwise.
pub(crate) fn columns_lib(width: usize) -> (&'static Lib, usize) {
    if width.is_multiple_of(4) {
        (COLUMNS_VEC4, width / 4)
    } else {
        (COLUMNS_SCALAR, width)
    }
}

/// A live size of a batch: a field of its [`Counts`](crate::data::Counts).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Count {
    /// Packed tokens.
    Tokens = 0,
    /// Segments.
    Segments = 1,
    /// Attention tiles.
    Tiles = 2,
    /// Answers.
    Answers = 3,
    /// Pairs.
    Pairs = 4,
    /// Targets.
    Targets = 5,
    /// Distinct tokens.
    TokenLists = 6,
    /// Distinct positions.
    PositionLists = 7,
    /// Distinct pooled rows.
    PooledLists = 8,
    /// Distinct rows with targets.
    TargetLists = 9,
}

/// A size that is fixed, or read from the batch's counts on the device.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The largest value, for which the plan is built.
    pub capacity: usize,
    /// The field that holds the live value; `None` if it is always `capacity`.
    pub live: Option<Count>,
    /// The live value is what the field leaves past this element: that of a part of a list.
    pub start: usize,
}

impl Size {
    /// A size that never changes.
    pub fn fixed(size: usize) -> Self {
        Self {
            capacity: size,
            live: None,
            start: 0,
        }
    }

    /// A size of at most `capacity`, read from the batch's counts.
    pub fn live(capacity: usize, field: Count) -> Self {
        Self::live_from(capacity, field, 0)
    }

    /// The part of a list from element `start` on, of at most `capacity`.
    pub fn live_from(capacity: usize, field: Count, start: usize) -> Self {
        Self {
            capacity,
            live: Some(field),
            start,
        }
    }

    pub(crate) fn field(self) -> u32 {
        self.live.map_or(u32::MAX, |field| field as u32)
    }

    pub(crate) fn capacity_u32(self, op: &'static str) -> Result<u32> {
        to_u32(op, self.capacity)
    }
}

/// Kernels index elements in 32 bits.
pub(crate) fn to_u32(op: &'static str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::shape(op, format!("{value} does not fit 32 bits")))
}

/// The library for live sizes, and the binding of the counts it needs (number 1).
pub(crate) fn live_lib<'a>(
    op: &'static str,
    sizes: &[Size],
    counts: Option<&'a Tensor>,
) -> Result<(&'static Lib, Option<Binding<'a>>)> {
    match (sizes.iter().any(|size| size.live.is_some()), counts) {
        (false, _) => Ok((LIVE_FIXED, None)),
        (true, Some(_)) => counts_lib(op, counts),
        (true, None) => Err(Error::shape(op, "a live size needs the batch's counts")),
    }
}

/// As [`live_lib`] for kernels all of whose sizes are live where there are counts, and fixed where
/// there are none.
pub(crate) fn counts_lib<'a>(
    op: &'static str,
    counts: Option<&'a Tensor>,
) -> Result<(&'static Lib, Option<Binding<'a>>)> {
    let Some(counts) = counts else {
        return Ok((LIVE_FIXED, None));
    };
    if counts.bytes() != size_of::<crate::data::batch::Counts>() as u64 {
        let detail = format!("`{}` has {} bytes", counts.label(), counts.bytes());
        return Err(Error::shape(op, detail + ", counts have 64"));
    }
    Ok((LIVE_COUNTS, Some(Binding::uniform(1, counts))))
}

/// Checks that a tensor has the expected shape and element type.
pub(crate) fn expect_shape<T: crate::gpu::Element>(
    op: &'static str,
    name: &str,
    tensor: &Tensor,
    shape: &[usize],
) -> Result<()> {
    tensor.expect_element::<T>()?;
    if tensor.shape() == shape {
        return Ok(());
    }
    Err(Error::shape(
        op,
        format!(
            "{name} is `{}` {:?}, expected {shape:?}",
            tensor.label(),
            tensor.shape()
        ),
    ))
}

/// Checks that a scratch tensor holds at least `len` values.
pub(crate) fn expect_scratch(
    op: &'static str,
    name: &str,
    tensor: &Tensor,
    len: usize,
) -> Result<()> {
    tensor.expect_element::<f32>()?;
    if tensor.len() >= len {
        return Ok(());
    }
    Err(Error::shape(
        op,
        format!(
            "{name} is `{}` {:?}, expected at least {len} values",
            tensor.label(),
            tensor.shape()
        ),
    ))
}
