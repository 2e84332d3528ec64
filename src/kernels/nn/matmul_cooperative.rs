//! Matrix products by cooperative matrices, operands rounded to f16:
//! `shaders/nn/matmul_cooperative.wgsl`.

#[cfg(test)]
mod tests;

use super::matmul::Product;
use crate::Result;
use crate::gpu::{Checks, Const, Lib, Plan, Shader};
use crate::kernels::{lib, shader};

/// The kernel's form for GPUs with 16x16x16 matrices of f16 and sums of f32.
// SAFETY: whole slices of whole tiles are read only where `fetch_a` and `fetch_b` have found them
// inside the matrix, others through `edge_a` and `edge_b`, which cut rows and columns to it;
// `Matrix::check` holds the matrices to their tensors, whose rows are whole fours
// (`Matrix::fours`). Parts in workgroup memory have CHUNKS * DOWN rows of STRIDE groups, TILE of
// SLICE / 4 + 2 or SLICE of TILE / 4 + 2, of which the first are more; fragments lie inside them,
// and the epilogue's indices are those of outputs inside the result.
pub const COOPERATIVE: Shader = unsafe {
    shader!(
        "nn.matmul_cooperative",
        "nn/matmul_cooperative.wgsl",
        Cooperative
    )
    .with_checks(Checks::None)
};

const FRAGMENTS: &Lib = lib!(
    "lib.matmul.fragment_cooperative",
    "matmul/fragment_cooperative.wgsl"
);

/// A result of fewer tiles of this many outputs a side is cut into smaller ones: a large device
/// has 60 to 150 multiprocessors, and each takes several tiles at a time.
const LARGE: u32 = 128;
const SMALL: u32 = 64;
const ENOUGH_TILES: usize = 64;

/// Outputs a side of a result's tiles.
fn tile_of(m: usize, n: usize) -> u32 {
    match tiles(LARGE, m, n) {
        ENOUGH_TILES.. => LARGE,
        _ => SMALL,
    }
}

/// How many tiles a result has.
fn tiles(tile: u32, m: usize, n: usize) -> usize {
    m.div_ceil(tile as usize) * n.div_ceil(tile as usize)
}

/// The `const` lines of a tile: fragments a side for each of 2 x 2 subgroups, and how many groups of
/// four each of 128 threads copies of an operand's part of 32 steps.
fn consts(tile: u32) -> [(&'static str, Const); 4] {
    let side = tile / 32;
    [
        ("TILE", Const::U32(tile)),
        ("SIDE", Const::U32(side)),
        ("FRAGMENTS", Const::U32(side * side)),
        ("CHUNKS", Const::U32(tile / 16)),
    ]
}

/// The kernel and its fragments.
#[cfg(not(test))]
fn text() -> (Shader, &'static Lib) {
    (COOPERATIVE, FRAGMENTS)
}

#[cfg(test)]
use tests::emulated as text;

impl Product<'_> {
    /// Appends the product.
    pub(super) fn push_cooperative(&self, plan: &mut Plan) -> Result<()> {
        let (shader, fragments) = text();
        let [m, n] = [self.params.m, self.params.n].map(|size| size as usize);
        let tile = tile_of(m, n);
        let entry = ("matmul_cooperative", &consts(tile)[..]);
        self.push(plan, &shader, entry, &[fragments], tiles(tile, m, n))
    }
}
