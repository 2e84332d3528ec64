//! Sum, moments, extremes and the count of non-finite values: `shaders/reduce/statistic.wgsl`.

use crate::gpu::{
    Binding, Cost, Dispatch, Lib, Params, Plan, Shader, Tensor, Variant, device_struct,
};
use crate::kernels::{
    DISPATCH, Size, columns_lib, expect_scratch, expect_shape, lib, live_lib, shader, to_u32,
};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("reduce.statistic", "reduce/statistic.wgsl", Core);

const OP: &str = "reduce.statistic";
const THREADS: usize = 64;
const CHUNK: usize = 16_384;
const SUM: &Lib = lib!("lib.statistic.sum", "statistic/sum.wgsl");
const MOMENTS: &Lib = lib!("lib.statistic.moments", "statistic/moments.wgsl");
const EXTREMES: &Lib = lib!("lib.statistic.extremes", "statistic/extremes.wgsl");
const NON_FINITE: &Lib = lib!("lib.statistic.non_finite", "statistic/non_finite.wgsl");

/// What to compute of some values x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// `[Σ x]`
    Sum,
    /// `[Σ x / n, Σ (x - mean)² / n]`, zeros where there is no value.
    Moments,
    /// `[min x, max x]` of the values that are numbers, infinities among them; `[inf, -inf]` where
    /// there is none.
    Extremes,
    /// `[n]`: how many values are infinite or not a number, found by their bits.
    NonFinite,
}

impl Statistic {
    /// Numbers in the result.
    pub fn result_len(self) -> usize {
        match self {
            Self::Sum | Self::NonFinite => 1,
            Self::Moments | Self::Extremes => 2,
        }
    }

    /// Values of scratch for `len` values.
    pub fn partials_len(self, len: usize) -> usize {
        len.div_ceil(CHUNK) * THREADS * self.part_len()
    }

    fn part_len(self) -> usize {
        match self {
            Self::Sum | Self::NonFinite => 1,
            Self::Extremes => 2,
            Self::Moments => 4,
        }
    }

    fn lib(self) -> &'static Lib {
        match self {
            Self::Sum => SUM,
            Self::Moments => MOMENTS,
            Self::Extremes => EXTREMES,
            Self::NonFinite => NON_FINITE,
        }
    }

    fn flops(self) -> u64 {
        match self {
            Self::Sum | Self::NonFinite => 1,
            Self::Extremes => 2,
            Self::Moments => 5,
        }
    }

    /// Labels of the two dispatches.
    fn labels(self) -> [&'static str; 2] {
        match self {
            Self::Sum => ["reduce.sum_chunks", "reduce.sum_total"],
            Self::Moments => ["reduce.moments_chunks", "reduce.moments_total"],
            Self::Extremes => ["reduce.extremes_chunks", "reduce.extremes_total"],
            Self::NonFinite => ["reduce.non_finite_chunks", "reduce.non_finite_total"],
        }
    }
}

/// The tensors of [`statistic`].
#[derive(Debug, Clone, Copy)]
pub struct StatisticIo<'a> {
    /// (rows, ...): the values.
    pub values: &'a Tensor,
    /// ([`Statistic::result_len`]), written.
    pub result: &'a Tensor,
    /// Scratch of at least [`Statistic::partials_len`] values.
    pub partials: &'a Tensor,
    /// The batch's counts, where the rows are live.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct StatisticParams {
        rows: u32,
        rows_count: u32,
        columns: u32,
        pad: u32,
    }
}

/// Appends a statistic of all values of the live rows: two dispatches.
///
/// The order of the sums depends on nothing but the number of values; a million values of mixed
/// sign keep an error below 1e-5 of their sum.
///
/// # Errors
///
/// [`Error::Shape`] for shapes that do not agree, and what [`Plan::push`] refuses.
pub fn statistic(
    plan: &mut Plan,
    io: &StatisticIo<'_>,
    statistic: Statistic,
    rows: Size,
) -> Result<()> {
    let len = io.values.len();
    // Where no row is left out, the shape is of no matter: one row is read the fastest.
    let (row_count, columns) = match rows.live {
        None => (1, len),
        Some(_) => (rows.capacity, len / rows.capacity.max(1)),
    };
    io.values.expect_element::<f32>()?;
    if io.values.shape().first() != Some(&rows.capacity) {
        return Err(Error::shape(
            OP,
            format!(
                "values are `{}` {:?}, expected {} rows",
                io.values.label(),
                io.values.shape(),
                rows.capacity
            ),
        ));
    }
    let scratch = statistic.partials_len(len);
    expect_shape::<f32>(OP, "result", io.result, &[statistic.result_len()])?;
    expect_scratch(OP, "partials", io.partials, scratch)?;
    let params = StatisticParams {
        rows: to_u32(OP, row_count)?,
        rows_count: rows.field(),
        columns: to_u32(OP, columns)?,
        pad: 0,
    };
    let (live, counts) = live_lib(OP, &[rows], io.counts)?;
    let (access, _) = columns_lib(columns);
    let libs = [
        DISPATCH,
        live,
        access,
        super::bits_lib(columns),
        statistic.lib(),
    ];
    let [chunks, total] = statistic.labels();
    let variant = |entry| Variant {
        entry,
        libs: &libs,
        consts: &[],
    };
    let mut bindings = vec![Binding::read(2, io.values), Binding::write(3, io.partials)];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: chunks,
        shader: &SHADER,
        variant: variant("statistic_chunks"),
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: len.div_ceil(CHUNK) as u64,
        cost: Cost {
            flops: statistic.flops() * len as u64,
            bytes: 4 * (len + scratch) as u64,
        },
    })?;
    let mut bindings = vec![Binding::write(3, io.partials), Binding::write(4, io.result)];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: total,
        shader: &SHADER,
        variant: variant("statistic_total"),
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: 1,
        cost: Cost {
            flops: statistic.flops() * scratch as u64,
            bytes: 4 * (scratch + statistic.result_len()) as u64,
        },
    })
}
