//! Advantages within groups of responses: `shaders/policy/group_advantage.wgsl`.

use serde::{Deserialize, Serialize};

use super::Response;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::{DISPATCH, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// Both stages.
pub const SHADER: Shader = shader!(
    "policy.group_advantage",
    "policy/group_advantage.wgsl",
    Core
);

const OP: &str = "policy.group_advantage";
const BATCH: &str = "policy.group_advantage_batch";

/// Responses at most: one workgroup of 256 threads passes over all of them three times, and some
/// drivers leave loops after 65,535 iterations.
const MAX_RESPONSES: usize = 256 * 20_000;

/// What a response is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u32)]
#[serde(rename_all = "snake_case")]
pub enum GroupBaseline {
    /// The group's mean reward (GRPO).
    #[default]
    Mean = 0,
    /// The mean reward of the others in the group (RLOO); a response alone in its group has
    /// advantage 0.
    LeaveOneOut = 1,
}

/// What the difference is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[repr(u32)]
#[serde(rename_all = "snake_case")]
pub enum GroupScale {
    /// Nothing.
    None = 0,
    /// The unbiased standard deviation of the group's rewards, plus `eps`.
    #[default]
    Group = 1,
    /// The unbiased standard deviation over all responses, plus `eps`: of the rewards where the
    /// baseline is the mean; of the advantages where it leaves one out, and then their mean is
    /// taken away too (TRL's `normalize_advantages`).
    Batch = 2,
}

/// Options of [`group_advantage`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupAdvantageOptions {
    /// What a response is compared with.
    pub baseline: GroupBaseline,
    /// What the difference is divided by.
    pub scale: GroupScale,
    /// The reward is `score - kl_coef kl`: 0 for the score alone.
    pub kl_coef: f32,
    /// Added to a standard deviation before it divides.
    pub eps: f32,
}

impl Default for GroupAdvantageOptions {
    /// GRPO's: the group's mean and deviation, no KL, 1e-4.
    fn default() -> Self {
        Self {
            baseline: GroupBaseline::Mean,
            scale: GroupScale::Group,
            kl_coef: 0.0,
            eps: 1e-4,
        }
    }
}

/// The tensors of [`group_advantage`].
#[derive(Debug, Clone, Copy)]
pub struct GroupAdvantageIo<'a> {
    /// (R), of [`Response`]: `score`, `kl` and the group's place are read, `advantage` is
    /// written. A group is `group_len` entries from `group_start` on, which all name it; an entry
    /// with `group_len` 0 is not in use: it gets 0 and counts nowhere.
    pub responses: &'a Tensor,
}

device_struct! {
    struct GroupAdvantageParams {
        responses: u32,
        baseline: u32,
        scale: u32,
        kl_coef: f32,
        eps: f32,
    }
}

/// Appends the advantage of each response over its group.
///
/// With `r = score - kl_coef kl`: `A = r - mean(r)` (Shao et al. 2024, arXiv 2402.03300, section
/// 4.1.2) or `A = r - mean of the others' r` (Ahmadian et al. 2024, arXiv 2402.14740), divided as
/// [`GroupScale`] says. Deviations are unbiased; of one response they are 0. A group of equal
/// rewards, or of one response, gets exactly 0 (with [`GroupScale::Batch`] and leave-one-out, what
/// taking the mean of all advantages away leaves). Groups may differ in size; one of more than
/// 30,000 responses is not supported.
///
/// # Errors
///
/// [`Error::Shape`] for tensors or options that do not fit or more than 5,120,000 responses, and
/// what [`Plan::push`] refuses.
pub fn group_advantage(
    plan: &mut Plan,
    io: &GroupAdvantageIo<'_>,
    options: &GroupAdvantageOptions,
) -> Result<()> {
    let responses = io.responses.len();
    expect_shape::<Response>(OP, "responses", io.responses, &[responses])?;
    if responses > MAX_RESPONSES {
        let detail = format!("{responses} responses, a rollout takes {MAX_RESPONSES}");
        return Err(Error::shape(OP, detail));
    }
    if !options.kl_coef.is_finite() || !options.eps.is_finite() || options.eps <= 0.0 {
        let detail = format!("kl_coef is {}, eps is {}", options.kl_coef, options.eps);
        return Err(Error::shape(OP, detail + ", eps must be above 0"));
    }
    let params = GroupAdvantageParams {
        responses: to_u32(OP, responses)?,
        baseline: options.baseline as u32,
        scale: options.scale as u32,
        kl_coef: options.kl_coef,
        eps: options.eps,
    };
    let bindings = [Binding::write(2, io.responses)];
    let mut dispatch = Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "group_advantage",
            libs: &[DISPATCH],
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: responses.div_ceil(64) as u64,
        cost: Cost {
            flops: 16 * responses as u64,
            bytes: 20 * responses as u64,
        },
    };
    plan.push(&dispatch)?;
    if options.scale == GroupScale::Batch && responses > 0 {
        dispatch.label = BATCH;
        dispatch.variant.entry = "group_advantage_batch";
        dispatch.workgroups = 1;
        plan.push(&dispatch)?;
    }
    Ok(())
}
