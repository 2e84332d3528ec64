//! Matrix products through workgroup memory: `shaders/nn/matmul_tiled.wgsl`, and for a small result of
//! long dot products `shaders/nn/matmul_total.wgsl`.

use super::matmul::{MatmulParams, OP, PARAMS, Product, STORE, STORE_BLOCK};
use crate::Result;
use crate::gpu::{Binding, Checks, Const, Cost, Dispatch, Params, Plan, Shader, Tiling, Variant};
use crate::kernels::{DISPATCH, shader, to_u32};

/// The kernel's form for GPUs: tiles of both operands in workgroup memory.
// SAFETY: operands are read in blocks that lie within the matrix, and at its edges through
// `within_a` and `within_b`, with rows cut to the matrix's by `four_of` and columns by themselves;
// `Matrix::check` holds the matrices to their tensors.
// Indices of workgroup memory stay below SPLIT * SLICE_SIZE, and the epilogue's indices are those of
// outputs inside the result.
pub const TILED: Shader =
    unsafe { shader!("nn.matmul_tiled", "nn/matmul_tiled.wgsl", Core).with_checks(Checks::None) };

/// The sums of the parts of a split product, with the epilogue.
pub const TOTAL: Shader = shader!("nn.matmul_total", "nn/matmul_total.wgsl", Core);

/// A result of fewer tiles is not cut into larger ones, and a split product has about as many:
/// wgpu does not say how many multiprocessors a device has, large ones have 60 to 150.
const ENOUGH_TILES: usize = 128;
/// With so many tiles a device has enough to do for threads that own more outputs each.
const PLENTY_OF_TILES: usize = 1024;
/// Dot products are split from this length on...
const SPLIT_FROM: usize = 2048;
/// ...into parts of this length or more.
const PART: usize = 512;
/// What a workgroup takes of k at a time, at most: parts are whole multiples.
const SLICE: usize = 64;

/// How a result is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// Outputs a side.
    side: u32,
    /// Fours of steps along k that are in workgroup memory at a time.
    steps: u32,
    /// Blocks of 4 x 4 outputs a thread, down and across.
    blocks: [u32; 2],
    /// Groups of threads that share the steps along k.
    split: u32,
}

impl Tile {
    const SMALL: Self = Self {
        side: 32,
        steps: 4,
        blocks: [2, 1],
        split: 4,
    };
    const MEDIUM: Self = Self {
        side: 64,
        steps: 8,
        blocks: [2, 1],
        split: 1,
    };
    const LARGE: Self = Self {
        side: 64,
        steps: 4,
        blocks: [2, 2],
        split: 1,
    };

    /// The tile of a result of `m` by `n`.
    pub(super) fn of(tiling: Tiling, m: usize, n: usize) -> Self {
        match tiling {
            Tiling::Small => Self::SMALL,
            Tiling::Medium => Self::MEDIUM,
            Tiling::Large => Self::LARGE,
            Tiling::BySize => match Self::MEDIUM.count(m, n) {
                PLENTY_OF_TILES.. => Self::LARGE,
                ENOUGH_TILES.. => Self::MEDIUM,
                _ => Self::SMALL,
            },
        }
    }

    /// How many there are of it.
    fn count(self, m: usize, n: usize) -> usize {
        let side = self.side as usize;
        m.div_ceil(side) * n.div_ceil(side)
    }
}

/// How long the parts are that dot products of length `k` are split into, where that makes use of
/// a device that `tiles` tiles leave more than half idle.
fn part_of(tiles: usize, k: usize) -> Option<usize> {
    let parts = (ENOUGH_TILES / tiles.max(1)).min(k / PART);
    let worth = k >= SPLIT_FROM && parts >= 2;
    worth.then(|| k.div_ceil(parts).next_multiple_of(SLICE))
}

impl Product<'_> {
    /// Appends the product, in two dispatches where it is split.
    pub(super) fn push_tiled(&self, plan: &mut Plan, tile: Tile) -> Result<()> {
        let [m, n, k] = [self.params.m, self.params.n, self.params.k].map(|size| size as usize);
        let tiles = tile.count(m, n);
        let Some(part) = part_of(tiles, k) else {
            return self.push_tiles(plan, tile, tiles);
        };
        let parts = k.div_ceil(part);
        let params = MatmulParams {
            part: to_u32(OP, part)?,
            ..self.params
        };
        let partials = plan.scratch(parts * m * n)?;
        let sums = Product {
            params: MatmulParams {
                out_offset: 0,
                out_stride: params.n,
                ..params
            },
            epilogue: STORE,
            outputs: vec![Binding::write(4, &partials)],
            ..*self
        };
        sums.push_tiles(plan, tile, tiles * parts)?;
        let mut total_libs = vec![DISPATCH, self.live, PARAMS, self.epilogue];
        total_libs.extend(self.stored.value_libs());
        let mut bindings = vec![Binding::read(2, &partials)];
        bindings.extend(&self.outputs);
        bindings.extend(self.counts);
        plan.push(&Dispatch {
            label: "nn.matmul.total",
            shader: &TOTAL,
            variant: Variant {
                entry: "matmul_total",
                libs: &total_libs,
                consts: &[],
            },
            params: Params::of(&params),
            bindings: &bindings,
            workgroups: (m * n / self.stored.columns()).div_ceil(64) as u64,
            cost: Cost {
                flops: (parts * m * n) as u64,
                bytes: 4 * ((parts + 1) * m * n) as u64,
            },
        })
    }

    fn push_tiles(&self, plan: &mut Plan, tile: Tile, workgroups: usize) -> Result<()> {
        let consts = [
            ("TILE", Const::U32(tile.side)),
            ("STEPS", Const::U32(tile.steps)),
            ("ROW_BLOCKS", Const::U32(tile.blocks[0])),
            ("COL_BLOCKS", Const::U32(tile.blocks[1])),
            ("SPLIT", Const::U32(tile.split)),
        ];
        let entry = ("matmul_tiled", &consts[..]);
        self.push(plan, &TILED, entry, &[STORE_BLOCK], workgroups)
    }
}

#[cfg(test)]
mod tests {
    use super::{ENOUGH_TILES, PART, SLICE, SPLIT_FROM, Tile, part_of};
    use crate::gpu::Tiling;

    #[test]
    fn large_results_are_cut_into_large_tiles() {
        let tile = |m, n| Tile::of(Tiling::BySize, m, n);
        assert_eq!(tile(4096, 4096), Tile::LARGE);
        assert_eq!(tile(2048, 768), Tile::MEDIUM);
        assert_eq!(tile(256, 768), Tile::SMALL);
        assert_eq!(tile(1, 1), Tile::SMALL);
    }

    #[test]
    fn parts_are_long_and_whole_slices_and_cover_k() {
        for tiles in 1..=2 * ENOUGH_TILES {
            for k in [1, 511, 2047, 2048, 2049, 5000, 14_336, 100_003] {
                let Some(part) = part_of(tiles, k) else {
                    assert!(k < SPLIT_FROM || 2 * tiles > ENOUGH_TILES, "{tiles} {k}");
                    continue;
                };
                let parts = k.div_ceil(part);
                assert!(part >= PART && part % SLICE == 0, "{tiles} {k}: {part}");
                assert!(
                    parts >= 2 && parts * tiles <= ENOUGH_TILES,
                    "{tiles} {k}: {parts}"
                );
            }
        }
    }
}
