//! AdamW over a window of parameters: `shaders/optim/adamw.wgsl`.

use std::ops::Range;

use super::grad_norm::expect_fours;
use crate::gpu::{Binding, Cost, Dispatch, Params, Plan, Shader, Tensor, Variant, device_struct};
use crate::kernels::operand::{Operand, bind_operands, operand, windows};
use crate::kernels::{DISPATCH, expect_shape, shader, to_u32};
use crate::{Error, Result};

/// The kernel's text: one vec4 a thread.
pub const SHADER: Shader = shader!("optim.adamw", "optim/adamw.wgsl", Core);

const OP: &str = "optim.adamw";
const OPERANDS: [&Operand; 4] = [
    operand!("param", 2, before 7),
    operand!("gradient", 3, before 8),
    operand!("first_moment", 4, before 9),
    operand!("second_moment", 5, before 10),
];

/// Hyper-parameters of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

device_struct! {
    /// What the device needs of a step's hyper-parameters, 32 bytes; the host writes it each step.
    ///
    /// Differences such as `1 - beta2` are taken in `f64` first: of an `f32` they would keep four
    /// digits.
    pub struct AdamWHyper {
        /// `beta1`
        pub beta1: f32,
        /// `1 - beta1`
        pub one_minus_beta1: f32,
        /// `beta2`
        pub beta2: f32,
        /// `1 - beta2`
        pub one_minus_beta2: f32,
        /// Added to the root of the second moment.
        pub eps: f32,
        /// `lr / (1 - beta1^t)`
        pub step_size: f32,
        /// `1 / sqrt(1 - beta2^t)`
        pub root_scale: f32,
        /// `1 - lr weight_decay`
        pub decay: f32,
    }
}

impl AdamWHyper {
    /// For step `step`, counted from 1; 0 is taken as 1.
    pub fn new(options: &AdamWOptions, step: u64) -> Self {
        let step = step.max(1) as f64;
        let correction1 = 1.0 - options.beta1.powf(step);
        let correction2 = 1.0 - options.beta2.powf(step);
        Self {
            beta1: options.beta1 as f32,
            one_minus_beta1: (1.0 - options.beta1) as f32,
            beta2: options.beta2 as f32,
            one_minus_beta2: (1.0 - options.beta2) as f32,
            eps: options.eps as f32,
            step_size: (options.lr / correction1) as f32,
            root_scale: correction2.sqrt().recip() as f32,
            decay: (1.0 - options.lr * options.weight_decay) as f32,
        }
    }
}

/// The tensors of [`adamw`]; the first four have one length, a multiple of 4.
#[derive(Debug, Clone, Copy)]
pub struct AdamWIo<'a> {
    /// The parameters, updated.
    pub params: &'a Tensor,
    /// Their gradients, cleared.
    pub grads: &'a Tensor,
    /// First moments, updated.
    pub m: &'a Tensor,
    /// Second moments, updated.
    pub v: &'a Tensor,
    /// (4), from [`grad_norm`](super::grad_norm::grad_norm).
    pub stats: &'a Tensor,
    /// (1), of [`AdamWHyper`], written by the host before each step.
    pub hyper: &'a Tensor,
}

device_struct! {
    struct AdamWParams {
        fours: u32,
        decayed_fours: u32,
    }
}

/// Appends one step over the whole window: clipped gradient, AdamW in PyTorch's order, gradients
/// cleared. Weight decay applies to the first `decayed` elements.
///
/// Where the norm was not finite, parameters and moments stay as they are and the gradients are
/// cleared all the same. Clipped gradients must stay under 1e19, the root of the largest `f32`.
///
/// # Errors
///
/// [`Error::Shape`] for lengths that differ or are no multiple of 4, and what [`Plan::push`]
/// refuses.
pub fn adamw(plan: &mut Plan, io: &AdamWIo<'_>, decayed: usize) -> Result<()> {
    let len = io.params.len();
    for tensor in [io.params, io.grads, io.m, io.v] {
        expect_fours(OP, tensor)?;
        if tensor.len() != len {
            let (label, found) = (tensor.label(), tensor.len());
            return Err(Error::shape(
                OP,
                format!("`{label}` has {found} elements, the parameters {len}"),
            ));
        }
    }
    expect_shape::<f32>(OP, "stats", io.stats, &[4])?;
    expect_shape::<AdamWHyper>(OP, "hyper", io.hyper, &[1])?;
    if decayed > len || !decayed.is_multiple_of(4) {
        return Err(Error::shape(
            OP,
            format!("{decayed} decayed elements of {len}: expected a multiple of 4 within"),
        ));
    }
    for window in windows(plan.gpu(), len) {
        push(plan, io, window, decayed)?;
    }
    Ok(())
}

fn push(plan: &mut Plan, io: &AdamWIo<'_>, elements: Range<usize>, decayed: usize) -> Result<()> {
    let (start, len) = (elements.start, elements.len());
    let params = AdamWParams {
        fours: to_u32(OP, len / 4)?,
        decayed_fours: to_u32(OP, decayed.saturating_sub(start).min(len) / 4)?,
    };
    let window = |tensor: &Tensor| tensor.window(tensor.label(), start, &[len]);
    let (param, gradient) = (window(io.params)?, window(io.grads)?);
    let (m, v) = (window(io.m)?, window(io.v)?);
    let mut bindings = vec![
        Binding::uniform(1, io.hyper),
        Binding::write(2, &param),
        Binding::write(3, &gradient),
        Binding::write(4, &m),
        Binding::write(5, &v),
        Binding::uniform(6, io.stats),
    ];
    let mut libs = bind_operands(plan.gpu(), &OPERANDS, &mut bindings, true);
    libs.push(DISPATCH);
    plan.push(&Dispatch {
        label: OP,
        shader: &SHADER,
        variant: Variant {
            entry: "adamw",
            libs: &libs,
            consts: &[],
        },
        params: Params::of(&params),
        bindings: &bindings,
        workgroups: (len / 4).div_ceil(256) as u64,
        cost: Cost {
            flops: 14 * len as u64,
            bytes: 32 * len as u64,
        },
    })
}
