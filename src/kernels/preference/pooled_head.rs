//! The scalar reward head: `shaders/preference/pooled_head.wgsl`.

use crate::data::batch::{Answer, RowList};
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::nn::zero_rows::zero_rows;
use crate::kernels::{Count, DISPATCH, counts_lib, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Forward and both backward entry points.
pub const SHADER: Shader = shader!(
    "preference.pooled_head",
    "preference/pooled_head.wgsl",
    Core
);

const FORWARD: &str = "preference.pooled_head_forward";
const DHIDDEN: &str = "preference.pooled_head_dhidden";
const DW: &str = "preference.pooled_head_dw";

device_struct! {
    struct PooledHeadParams {
        answers: u32,
        answers_count: u32,
        lists: u32,
        lists_count: u32,
        width: u32,
    }
}

/// The tensors of [`pooled_head_forward`].
#[derive(Debug, Clone, Copy)]
pub struct PooledHeadIo<'a> {
    /// (T, C), after the model's last normalisation.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (A), of [`Answer`].
    pub answers: &'a Tensor,
    /// (A), written.
    pub rewards: &'a Tensor,
    /// The batch's counts: how many answers are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends `reward[a] = hidden[pooled_row of a] · w`; there is no bias, as in Hugging Face's
/// `score` heads.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn pooled_head_forward(plan: &mut Plan, io: &PooledHeadIo<'_>) -> Result<()> {
    let width = check_head(FORWARD, io.hidden, io.w)?;
    let answers = io.answers.len();
    expect_shape::<Answer>(FORWARD, "answers", io.answers, &[answers])?;
    expect_shape::<f32>(FORWARD, "rewards", io.rewards, &[answers])?;
    push(
        plan,
        FORWARD,
        "pooled_head_forward",
        params(FORWARD, answers, 0, width)?,
        vec![
            Binding::read(2, io.answers),
            Binding::read(3, io.hidden),
            Binding::read(4, io.w),
            Binding::write(5, io.rewards),
        ],
        io.counts,
        (answers, answers * width),
    )
}

/// The tensors of [`pooled_head_backward`].
#[derive(Debug, Clone, Copy)]
pub struct PooledHeadBackwardIo<'a> {
    /// (T, C), as in the forward pass.
    pub hidden: &'a Tensor,
    /// (C).
    pub w: &'a Tensor,
    /// (A), of [`Answer`].
    pub answers: &'a Tensor,
    /// (L), of [`RowList`]: one for each row that is pooled.
    pub pooled_lists: &'a Tensor,
    /// The answers that the lists name.
    pub pooled_rows: &'a Tensor,
    /// (A): the gradient of the rewards.
    pub drewards: &'a Tensor,
    /// (T, C), written: zero in rows that no answer pools.
    pub dhidden: &'a Tensor,
    /// (C), added to.
    pub dw: &'a Tensor,
    /// The batch's counts: how many answers, tokens and lists are live. Without, all are.
    pub counts: Option<&'a Tensor>,
}

/// Appends the gradients of [`pooled_head_forward`]:
/// `dhidden[row] = w Σ dreward[a]` over the answers pooled there, `dw += Σ dreward[a] hidden[row]`.
///
/// # Errors
///
/// [`Error::Shape`] for tensors that do not fit, and what [`Plan::push`] refuses.
pub fn pooled_head_backward(plan: &mut Plan, io: &PooledHeadBackwardIo<'_>) -> Result<()> {
    let width = check_head(DHIDDEN, io.hidden, io.w)?;
    let (answers, lists) = (io.answers.len(), io.pooled_lists.len());
    expect_shape::<Answer>(DHIDDEN, "answers", io.answers, &[answers])?;
    expect_shape::<RowList>(DHIDDEN, "pooled_lists", io.pooled_lists, &[lists])?;
    expect_shape::<u32>(
        DHIDDEN,
        "pooled_rows",
        io.pooled_rows,
        &[io.pooled_rows.len()],
    )?;
    expect_shape::<f32>(DHIDDEN, "drewards", io.drewards, &[answers])?;
    expect_shape::<f32>(DHIDDEN, "dhidden", io.dhidden, io.hidden.shape())?;
    expect_shape::<f32>(DW, "dw", io.dw, &[width])?;
    let params = params(DHIDDEN, answers, lists, width)?;
    zero_rows(plan, io.dhidden, io.counts)?;
    push(
        plan,
        DHIDDEN,
        "pooled_head_dhidden",
        params,
        vec![
            Binding::read(4, io.w),
            Binding::read(6, io.drewards),
            Binding::read(7, io.pooled_lists),
            Binding::read(8, io.pooled_rows),
            Binding::write(9, io.dhidden),
        ],
        io.counts,
        (lists, lists * width),
    )?;
    push(
        plan,
        DW,
        "pooled_head_dw",
        params,
        vec![
            Binding::read(2, io.answers),
            Binding::read(3, io.hidden),
            Binding::read(6, io.drewards),
            Binding::write(10, io.dw),
        ],
        io.counts,
        (width.div_ceil(16), answers * width),
    )
}

fn check_head(op: &'static str, hidden: &Tensor, w: &Tensor) -> Result<usize> {
    let width = w.len();
    if width == 0 {
        return Err(Error::shape(op, "the head has no weights"));
    }
    expect_shape::<f32>(op, "w", w, &[width])?;
    expect_shape::<f32>(op, "hidden", hidden, &[hidden.len() / width, width])?;
    Ok(width)
}

fn params(
    op: &'static str,
    answers: usize,
    lists: usize,
    width: usize,
) -> Result<PooledHeadParams> {
    Ok(PooledHeadParams {
        answers: to_u32(op, answers)?,
        answers_count: Count::Answers as u32,
        lists: to_u32(op, lists)?,
        lists_count: Count::PooledLists as u32,
        width: to_u32(op, width)?,
    })
}

/// `size` is the number of workgroups and that of elements of `hidden` that are read or written.
fn push<'a>(
    plan: &mut Plan,
    label: &'static str,
    entry: &'static str,
    params: PooledHeadParams,
    mut bindings: Vec<Binding<'a>>,
    counts: Option<&'a Tensor>,
    (workgroups, elements): (usize, usize),
) -> Result<()> {
    let (live, counts) = counts_lib(label, counts)?;
    bindings.extend(counts);
    plan.push(&Dispatch {
        label,
        shader: &SHADER,
        variant: Variant {
            entry,
            libs: &[DISPATCH, live],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: workgroups as u64,
        cost: Cost {
            flops: 2 * elements as u64,
            bytes: 4 * elements as u64,
        },
    })
}
