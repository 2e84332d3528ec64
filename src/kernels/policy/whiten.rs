//! Advantages of a rollout brought to unit variance: `shaders/policy/whiten.wgsl`.

use super::Experience;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{DISPATCH, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// All stages.
pub const SHADER: Shader = shader!("policy.whiten", "policy/whiten.wgsl", Core);

const OP: &str = "policy.whiten";

/// Columns of one row that a workgroup takes.
const CHUNK: usize = 2048;
/// Chunks at most: one workgroup of 128 threads passes over all of them, and some drivers leave
/// loops after 65,535 iterations.
const MAX_CHUNKS: usize = 128 * 60_000;

/// Options of [`whiten`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WhitenOptions {
    /// Whether the mean becomes 0; otherwise it stays what it was.
    pub shift_mean: bool,
    /// Added to the variance.
    pub eps: f32,
}

impl Default for WhitenOptions {
    /// Mean 0, 1e-8.
    fn default() -> Self {
        Self {
            shift_mean: true,
            eps: 1e-8,
        }
    }
}

/// The tensors of [`whiten`].
#[derive(Debug, Clone, Copy)]
pub struct WhitenIo<'a> {
    /// (M, columns), of [`Experience`]: the rollout's batches; `advantage` is replaced.
    pub experience: &'a Tensor,
    /// (M), of `u32`: how many entries of each row are in use.
    pub lens: &'a Tensor,
    /// ([`partial_rows`], 4), scratch. Afterwards its first row holds the mean as rounded, the
    /// number of entries, what the mean lacks, and the factor `1 / sqrt(variance + eps)`.
    pub partials: &'a Tensor,
}

device_struct! {
    struct WhitenParams {
        rows: u32,
        columns: u32,
        chunks: u32,
        keep_mean: u32,
        eps: f32,
    }
}

/// Rows of scratch that a rollout of `rows` batches of at most `columns` targets needs.
pub fn partial_rows(rows: usize, columns: usize) -> usize {
    1 + rows * columns.div_ceil(CHUNK)
}

/// Appends what brings the advantages of a whole rollout to zero mean and unit variance:
/// `y = (x - mean) / sqrt(variance + eps)`, plus the mean where it is not shifted away.
///
/// Mean and unbiased variance are over the entries, among the first `lens[m]` of each row `m`,
/// whose weight is not 0; other entries among them become 0, those past `lens[m]` are left alone.
/// Of one entry the variance counts as 0: it becomes 0, or stays what it is with its mean. Sums
/// run in a fixed order, in two passes with the correction for the rounded mean (Chan, Golub and
/// LeVeque 1983, equation 1.7).
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit, and what [`Plan::push`] refuses.
pub fn whiten(plan: &mut Plan, io: &WhitenIo<'_>, options: &WhitenOptions) -> Result<()> {
    let &[rows, columns] = io.experience.shape() else {
        let detail = format!("experience is {:?}", io.experience.shape());
        return Err(Error::shape(OP, detail + ", expected two dimensions"));
    };
    let chunks = columns.div_ceil(CHUNK);
    expect_shape::<Experience>(OP, "experience", io.experience, &[rows, columns])?;
    expect_shape::<u32>(OP, "lens", io.lens, &[rows])?;
    let scratch = [partial_rows(rows, columns), 4];
    expect_shape::<f32>(OP, "partials", io.partials, &scratch)?;
    to_u32(OP, rows * columns)?;
    if rows * chunks > MAX_CHUNKS {
        let detail = format!("{rows} rows of {columns}: over {MAX_CHUNKS} chunks");
        return Err(Error::shape(OP, detail));
    }
    if !options.eps.is_finite() || options.eps <= 0.0 {
        let detail = format!("eps is {}, expected above 0", options.eps);
        return Err(Error::shape(OP, detail));
    }
    let params = WhitenParams {
        rows: to_u32(OP, rows)?,
        columns: to_u32(OP, columns)?,
        chunks: to_u32(OP, chunks)?,
        keep_mean: (!options.shift_mean).into(),
        eps: options.eps,
    };
    let experience = Binding::write(2, io.experience);
    let (lens, partials) = (Binding::read(3, io.lens), Binding::write(4, io.partials));
    let each = [experience, lens, partials];
    let all = [partials];
    let wide = (rows * chunks) as u64;
    let stages: [(_, &[Binding<'_>], _); 5] = [
        ("whiten_sums", &each, wide),
        ("whiten_mean", &all, wide.min(1)),
        ("whiten_distances", &each, wide),
        ("whiten_spread", &all, wide.min(1)),
        ("whiten_apply", &each, wide),
    ];
    for (entry, bindings, workgroups) in stages {
        let entries = (rows * columns * (bindings.len() / 3)) as u64;
        plan.push(&Dispatch {
            label: OP,
            shader: &SHADER,
            variant: Variant {
                entry,
                libs: &[DISPATCH],
                consts: &[],
            },
            params: Params::of(&params),
            bindings,
            workgroups,
            cost: Cost {
                flops: 4 * entries,
                bytes: 8 * entries + 16 * wide,
            },
        })?;
    }
    Ok(())
}
