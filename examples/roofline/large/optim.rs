//! The update of a model of GPT-2's size.

use prefgrad::kernels::optim::adamw::{AdamWHyper, AdamWIo, AdamWOptions, adamw};
use prefgrad::kernels::optim::grad_norm::{GradNormIo, grad_norm, partial_rows};
use prefgrad::{Plan, Result};

use super::{Data, work};
use crate::work::Work;

const PARAMETERS: usize = 124_439_808;
const OPTIONS: AdamWOptions = AdamWOptions {
    lr: 1e-4,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
};

pub fn works() -> Vec<Work> {
    let name = "124 million parameters";
    vec![
        work("optim.adamw", name, updated),
        work("optim.grad_norm", name, normed),
    ]
}

fn updated(data: &Data) -> Result<Plan> {
    let shape = [PARAMETERS];
    let io = AdamWIo {
        params: &data.random("params", &shape)?,
        grads: &data.random("grads", &shape)?,
        m: &data.random("m", &shape)?,
        v: &data.zeros("v", &shape)?,
        // Norm, coefficient, not finite, skipped.
        stats: &data.list("stats", &[1.0_f32, 1.0, 0.0, 0.0])?,
        hyper: &data.list("hyper", &[AdamWHyper::new(&OPTIONS, 1000)])?,
    };
    let mut plan = data.plan();
    adamw(&mut plan, &io, PARAMETERS)?;
    Ok(plan)
}

fn normed(data: &Data) -> Result<Plan> {
    let io = GradNormIo {
        grads: &[&data.random("grads", &[PARAMETERS])?],
        partials: &data.zeros("partials", &[partial_rows(PARAMETERS), 4])?,
        stats: &data.zeros("stats", &[4])?,
    };
    let mut plan = data.plan();
    grad_norm(&mut plan, &io, Some(1.0))?;
    Ok(plan)
}
