//! [`Optimizer`]: AdamW with global-norm clipping over all of a model's parameters.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::optim::adamw::{AdamWHyper, AdamWIo, AdamWOptions, adamw};
use crate::kernels::optim::grad_norm::{GradNormIo, grad_norm, partial_rows};
use crate::model::Parameters;

/// AdamW's constants (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2) and the largest
/// gradient norm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of matrices and tables; biases and norms have none.
    pub weight_decay: f64,
    /// Gradients of a larger global norm are scaled down to it.
    pub max_grad_norm: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
        }
    }
}

/// What the device keeps of the last update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateStatistics {
    /// The global gradient norm before clipping.
    pub grad_norm: f32,
    /// Updates left out so far because a gradient was not finite.
    pub skipped: u32,
}

/// The recorded update: gradient norm, then one sweep a parameter buffer.
pub struct Optimizer {
    options: AdamW,
    hyper: Tensor,
    statistics: Tensor,
    plan: Plan,
    steps: u64,
}

impl Optimizer {
    /// Records the update of `parameters`.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`] and [`Plan::push`].
    pub fn new(gpu: &Gpu, parameters: &Parameters, options: AdamW) -> Result<Self> {
        let hyper = Tensor::zeros::<AdamWHyper>(gpu, "AdamW", &[1])?;
        let statistics = Tensor::zeros::<f32>(gpu, "gradient norm", &[4])?;
        let gradients: Vec<&Tensor> = parameters.chunks().iter().map(|c| &c.gradients).collect();
        let rows = gradients.iter().map(|g| partial_rows(g.len())).sum();
        let partials = Tensor::zeros::<f32>(gpu, "norm partials", &[rows, 4])?;
        let mut plan = Plan::new(gpu);
        grad_norm(
            &mut plan,
            &GradNormIo {
                grads: &gradients,
                partials: &partials,
                stats: &statistics,
            },
            Some(options.max_grad_norm as f32),
        )?;
        for chunk in parameters.chunks() {
            adamw(
                &mut plan,
                &AdamWIo {
                    params: &chunk.weights,
                    grads: &chunk.gradients,
                    m: &chunk.m,
                    v: &chunk.v,
                    stats: &statistics,
                    hyper: &hyper,
                },
                chunk.decayed,
            )?;
        }
        Ok(Self {
            options,
            hyper,
            statistics,
            plan,
            steps: 0,
        })
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on from a checkpoint that was written after `steps` updates.
    pub fn resume_at(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Submits one update with the gradients accumulated so far; they are zero afterwards.
    ///
    /// # Errors
    ///
    /// As [`Tensor::write`].
    pub fn step(&mut self, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        let hyper = AdamWHyper::new(
            &AdamWOptions {
                lr: learning_rate,
                beta1: self.options.beta1,
                beta2: self.options.beta2,
                eps: self.options.eps,
                weight_decay: self.options.weight_decay,
            },
            self.steps,
        );
        self.hyper.write(self.plan.gpu(), &[hyper])?;
        self.plan.submit();
        Ok(())
    }

    /// Reads what the last update left; waits for it.
    ///
    /// # Errors
    ///
    /// As [`Tensor::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn statistics(&self) -> Result<UpdateStatistics> {
        let row: Vec<f32> = self.statistics.read(self.plan.gpu())?;
        Ok(UpdateStatistics {
            grad_norm: row[0],
            skipped: row[3] as u32,
        })
    }

    /// The recorded update, for profiles.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}
