//! candle on the CPU, with its own matrix products.

mod kernels;
mod logits;
mod model;
mod step;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Shape, Tensor, Var};

use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{Row, STEP_A, STEP_B};

pub fn open(row: Row) -> Result<(Box<dyn Work>, String)> {
    let work: Box<dyn Work> = match row {
        Row::StepA => Box::new(step::RewardStep::new(STEP_A)?),
        Row::StepB => Box::new(step::RewardStep::new(STEP_B)?),
        Row::Matmul512 => Box::new(kernels::Matmul::new(512)?),
        Row::Matmul1024 => Box::new(kernels::Matmul::new(1024)?),
        Row::Attention => Box::new(kernels::Attention::new()?),
        Row::LayerNorm => Box::new(kernels::Norm::new()?),
        Row::LogSoftmax => Box::new(logits::LogSoftmax::new()?),
        Row::PpoLoss => Box::new(logits::PpoLoss::new()?),
    };
    Ok((work, "CPU".into()))
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// A tensor that gets a gradient.
fn leaf(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Var> {
    Ok(Var::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// Tensors of the latest run under the names by which they are compared.
#[derive(Default)]
struct Outputs(Vec<(&'static str, Tensor)>);

impl Outputs {
    fn digests(&self) -> Result<Vec<Digest>> {
        let digest = |(name, tensor): &(&str, Tensor)| {
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            Ok(Digest::of(name, &values))
        };
        self.0.iter().map(digest).collect()
    }
}

/// The gradient of a leaf.
fn gradient(leaf: &Var, gradients: &GradStore) -> Result<Tensor> {
    let gradient = gradients.get(leaf).context("a leaf without a gradient")?;
    Ok(gradient.clone())
}
