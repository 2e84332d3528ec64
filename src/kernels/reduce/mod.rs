//! Reductions of whole tensors to a few numbers, and filling.

pub mod fill;
pub mod statistic;

use crate::gpu::Lib;
use crate::kernels::lib;

const BITS_VEC4: &Lib = lib!("lib.bits_vec4", "bits_vec4.wgsl");
const BITS_SCALAR: &Lib = lib!("lib.bits_scalar", "bits_scalar.wgsl");

/// Bit patterns of what [`columns_lib`](crate::kernels::columns_lib) gives for the same width.
fn bits_lib(width: usize) -> &'static Lib {
    if width.is_multiple_of(4) {
        BITS_VEC4
    } else {
        BITS_SCALAR
    }
}
