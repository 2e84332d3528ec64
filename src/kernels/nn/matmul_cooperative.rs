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
// (`Matrix::fours`); without EDGES the host has found every tile and slice whole. Parts in workgroup
// memory have CHUNKS * DOWN rows of STRIDE groups, TILE of SLICE / 4 + 2 or SLICE of TILE / 4 + 2, of
// which the first are more; fragments lie inside them, and the epilogue's indices are those of
// outputs inside the result.
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

/// Outputs a side of a tile. Of 128 they are a seventh faster where a result is 4096 wide, and half
/// as fast where it is 512: see `docs/rejected.md`.
const TILE: usize = 64;
/// Steps of 16 along k that are in workgroup memory at a time.
const STEPS: usize = 2;
/// Fragments a side for each of 2 x 2 subgroups.
const SIDE: usize = TILE / 32;

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
        let [m, n, k] = [self.params.m, self.params.n, self.params.k].map(|size| size as usize);
        let whole = [m % TILE, n % TILE, k % (16 * STEPS)] == [0; 3];
        let live_k = self.params.k_count != u32::MAX;
        let consts = [
            ("TILE", Const::U32(TILE as u32)),
            ("SIDE", Const::U32(SIDE as u32)),
            ("FRAGMENTS", Const::U32((SIDE * SIDE) as u32)),
            // Groups of four of each operand's part that each of 128 threads copies.
            ("CHUNKS", Const::U32((TILE * 16 * STEPS / (4 * 128)) as u32)),
            ("STEPS", Const::U32(STEPS as u32)),
            ("EDGES", Const::Bool(!whole || live_k)),
        ];
        let entry = ("matmul_cooperative", &consts[..]);
        let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
        self.push(plan, &shader, entry, &[fragments], tiles)
    }
}
