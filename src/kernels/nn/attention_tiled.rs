//! Attention through workgroup memory: `shaders/nn/attention*_tiled.wgsl`.

use crate::Result;
use crate::data::batch::TILE_ROWS;
use crate::gpu::{Checks, Const, Gpu, Lib, Shader, Tiling};
use crate::kernels::{lib, shader, to_u32};

/// [`FORWARD`](super::attention::FORWARD) through workgroup memory.
pub const FORWARD_TILED: Shader = indexed_by_threads(shader!(
    "nn.attention_tiled",
    "nn/attention_tiled.wgsl",
    Core
));
/// [`BACKWARD_DQ`](super::attention::BACKWARD_DQ) through workgroup memory.
pub const BACKWARD_DQ_TILED: Shader = indexed_by_threads(shader!(
    "nn.attention_dq_tiled",
    "nn/attention_dq_tiled.wgsl",
    Core
));
/// [`BACKWARD_DKV`](super::attention::BACKWARD_DKV) through workgroup memory.
pub const BACKWARD_DKV_TILED: Shader = indexed_by_threads(shader!(
    "nn.attention_dkv_tiled",
    "nn/attention_dkv_tiled.wgsl",
    Core
));

const fn indexed_by_threads(shader: Shader) -> Shader {
    // SAFETY: only indices into buffers depend on what bindings hold, and those stay checked. What
    // these texts index otherwise they index by constants, by loops over an array's own length, and
    // by a thread's group, lane and copy: `group_of` is below GROUPS, `lane_of` below LANES, `slot`
    // below GROUPS, and copies stop at OWN_SIZE and BLOCK_SIZE.
    unsafe { shader.with_checks(Checks::Buffers) }
}

const COMMON: &Lib = lib!("lib.attention_tiled", "attention_tiled.wgsl");
const BACKWARD: &Lib = lib!(
    "lib.attention_tiled_backward",
    "attention_tiled_backward.wgsl"
);

/// From this many workgroups on each owns a whole tile, below half of one: as for matrix products,
/// a large device has 60 to 150 multiprocessors, each of which takes several.
const ENOUGH_WORKGROUPS: usize = 256;
/// Own rows of a thread, and rows of the block.
const THREAD_ROWS: [usize; 2] = [4, 2];

/// How far the loops over a block's rows and over columns are written out.
#[derive(Debug, Clone, Copy)]
struct Unrolled {
    /// Divides the rows of every block.
    rows: usize,
    /// Vectors of four columns, at most.
    columns: usize,
}

impl Unrolled {
    const GPU: Self = Self {
        rows: 16,
        columns: 16,
    };
    /// Software drivers compile longer bodies for minutes.
    const SOFTWARE: Self = Self {
        rows: 4,
        columns: 4,
    };

    fn on(gpu: &Gpu) -> Self {
        if gpu.is_software() {
            Self::SOFTWARE
        } else {
            Self::GPU
        }
    }

    /// Vectors of columns a step, of `all`.
    fn columns_of(self, all: usize) -> usize {
        let steps = (1..=self.columns).rev();
        let mut dividing = steps.filter(|&step| all.is_multiple_of(step));
        dividing.next().unwrap_or(1)
    }
}

/// Which of the passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// How many rows of its own a workgroup has, and how many of the other side it takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    own: usize,
    other: usize,
}

impl Shape {
    const ALL: [Self; 3] = [
        Self::new(TILE_ROWS as usize, 32),
        Self::new(16, 32),
        Self::new(16, 16),
    ];

    const fn new(own: usize, other: usize) -> Self {
        Self { own, other }
    }

    /// The fastest that the device's workgroup memory holds, if any: wgpu does not enforce that
    /// limit. `whole_tiles` is how many workgroups there are if each owns a whole tile.
    pub(super) fn of(
        gpu: &Gpu,
        tiling: Tiling,
        pass: Pass,
        width: usize,
        whole_tiles: usize,
    ) -> Option<Self> {
        let limit = gpu.limits().max_compute_workgroup_storage_size as usize;
        let halves = match tiling {
            Tiling::Small => true,
            Tiling::Medium | Tiling::Large => false,
            Tiling::BySize => whole_tiles < ENOUGH_WORKGROUPS,
        };
        Self::ALL
            .into_iter()
            .skip(usize::from(halves))
            .find(|shape| shape.memory(pass, width) <= limit)
    }

    /// Workgroups a tile.
    pub(super) fn parts(self) -> usize {
        TILE_ROWS as usize / self.own
    }

    fn groups(self) -> usize {
        self.own / THREAD_ROWS[0]
    }

    fn lanes(self) -> usize {
        self.other / THREAD_ROWS[1]
    }

    /// Bytes of workgroup memory.
    fn memory(self, pass: Pass, width: usize) -> usize {
        let stride = (width / 4) | 1;
        let weights = self.groups() * self.other;
        let vectors = match pass {
            Pass::Forward => (self.own + self.other) * stride + self.groups() * self.lanes(),
            Pass::Backward => (2 * self.own + self.other) * stride + self.groups(),
        };
        16 * (vectors + weights)
    }

    /// The prelude of the shaders, for heads this wide.
    pub(super) fn consts(
        self,
        gpu: &Gpu,
        op: &'static str,
        width: usize,
    ) -> Result<Vec<(&'static str, Const)>> {
        let width4 = width / 4;
        let unrolled = Unrolled::on(gpu);
        let threads = self.groups() * self.lanes();
        [
            ("WIDTH4", width4),
            ("OWN", self.own),
            ("OTHER", self.other),
            ("RUN", unrolled.rows),
            ("STEP", unrolled.columns_of(width4)),
            ("LANES", self.lanes()),
            ("COLUMNS", width4.div_ceil(self.lanes())),
            ("OWN_COPIES", (self.own * width4).div_ceil(threads)),
            ("COPIES", (self.other * width4).div_ceil(threads)),
        ]
        .into_iter()
        .map(|(name, value)| Ok((name, Const::U32(to_u32(op, value)?))))
        .collect()
    }
}

impl Pass {
    pub(super) fn libs(self) -> &'static [&'static Lib] {
        match self {
            Self::Forward => &[COMMON],
            Self::Backward => &[COMMON, BACKWARD],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pass, Shape};

    #[test]
    fn heads_of_64_fit_webgpus_default_and_of_128_twice_that() {
        let smallest = Shape::ALL[2];
        for pass in [Pass::Forward, Pass::Backward] {
            assert!(smallest.memory(pass, 64) <= 16 << 10);
            assert!(smallest.memory(pass, 128) <= 32 << 10);
            assert!(Shape::ALL[0].memory(pass, 64) <= 32 << 10);
        }
    }
}
