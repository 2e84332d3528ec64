//! Generalised advantage estimation: `shaders/policy/gae.wgsl`.

use super::lists::expect_lists;
use super::{Experience, KL, KlControl, KlEstimator, Response};
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text.
pub const SHADER: Shader = shader!("policy.gae", "policy/gae.wgsl", Core);

const OP: &str = "policy.gae";

/// Options of [`gae`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaeOptions {
    /// Discount of what comes one token later, in `[0, 1]`.
    pub gamma: f32,
    /// Weight of longer sums against the value's estimate, in `[0, 1]`.
    pub lambda: f32,
    /// The estimate that the KL penalty of each token is taken from.
    pub kl_estimator: KlEstimator,
}

impl Default for GaeOptions {
    /// No discount, `lambda` 0.95, K1.
    fn default() -> Self {
        Self {
            gamma: 1.0,
            lambda: 0.95,
            kl_estimator: KlEstimator::K1,
        }
    }
}

/// The tensors of [`gae`].
#[derive(Debug, Clone, Copy)]
pub struct GaeIo<'a> {
    /// (A), of [`RowList`](crate::data::RowList): each answer's entries of `answer_rows`. No two
    /// may share a target: pack one entry a response.
    pub answer_lists: &'a Tensor,
    /// (N), of `u32`: indices of targets.
    pub answer_rows: &'a Tensor,
    /// (N), of [`Experience`]: advantage and returns are written for the targets of the lists.
    pub experience: &'a Tensor,
    /// (A), of [`Response`]: `score` is read.
    pub responses: &'a Tensor,
    /// (1), of [`KlControl`].
    pub kl_control: &'a Tensor,
    /// The batch's counts: how many answers are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

device_struct! {
    struct GaeParams {
        answers: u32,
        answers_count: u32,
        gamma: f32,
        lambda: f32,
        kl_estimator: u32,
    }
}

/// Appends the advantage and the return of each token of each response.
///
/// Over the entries of a response's list, backwards: `r = -kl_coef kl` (0 where the weight is 0),
/// plus the response's score at the last entry; `δ = r + gamma V' - V`, `A = δ + gamma lambda A'`
/// with `V'` and `A'` of the entry behind and 0 behind the last; `returns = A + V` (Schulman et
/// al. 2015, arXiv 1506.02438, equation 16; the reward of a token Ouyang et al. 2022, arXiv
/// 2203.02155, section 3.5). Nothing of one response enters another.
///
/// An entry of weight 0 is a step without a penalty: put at a list's end, it takes the score and
/// its own value counts, which is where TRL puts the score of a response that ended early.
///
/// K3's exponent is cut at 60.
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit or more than 1,920,000 targets, and
/// what [`Plan::push`] refuses.
pub fn gae(plan: &mut Plan, io: &GaeIo<'_>, options: &GaeOptions) -> Result<()> {
    let (answers, targets) = expect_lists(OP, io.answer_lists, io.answer_rows)?;
    expect_shape::<Experience>(OP, "experience", io.experience, &[targets])?;
    expect_shape::<Response>(OP, "responses", io.responses, &[answers])?;
    expect_shape::<KlControl>(OP, "kl_control", io.kl_control, &[1])?;
    for (name, value) in [("gamma", options.gamma), ("lambda", options.lambda)] {
        if !(0.0..=1.0).contains(&value) {
            let detail = format!("{name} is {value}, expected 0 to 1");
            return Err(Error::shape(OP, detail));
        }
    }
    let params = GaeParams {
        answers: to_u32(OP, answers)?,
        answers_count: Count::Answers as u32,
        gamma: options.gamma,
        lambda: options.lambda,
        kl_estimator: options.kl_estimator as u32,
    };
    let (live, counts) = counts_lib(OP, io.counts)?;
    let mut bindings = vec![
        Binding::read(2, io.answer_lists),
        Binding::read(3, io.answer_rows),
        Binding::write(4, io.experience),
        Binding::read(5, io.responses),
        Binding::uniform(6, io.kl_control),
    ];
    bindings.extend(counts);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "gae",
            libs: &[DISPATCH, live, KL],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: answers as u64,
        cost: Cost {
            flops: 24 * targets as u64,
            bytes: 36 * targets as u64 + 48 * answers as u64,
        },
    })
}
