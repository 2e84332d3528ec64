//! burn on wgpu, as one gets it by default: with fusion and autotune.

mod kernels;
mod logits;
mod model;
mod step;

use anyhow::{Context, Result, anyhow};
use burn::tensor::{Device, DeviceKind, Gradients, Int, Tensor, TensorData};

use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{Row, STEP_A, STEP_B};

pub fn open(row: Row) -> Result<(Box<dyn Work>, String)> {
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let name = format!("{device:?}");
    let learning = device.clone().autodiff();
    let work: Box<dyn Work> = match row {
        Row::StepA => Box::new(step::RewardStep::new(learning, STEP_A)?),
        Row::StepB => Box::new(step::RewardStep::new(learning, STEP_B)?),
        Row::Matmul512 => Box::new(kernels::Matmul::new(device, 512)),
        Row::Matmul1024 => Box::new(kernels::Matmul::new(device, 1024)),
        Row::Attention => Box::new(kernels::Attention::new(learning)),
        Row::LayerNorm => Box::new(kernels::Norm::new(learning)),
        Row::LogSoftmax => Box::new(logits::LogSoftmax::new(device)),
        Row::PpoLoss => Box::new(logits::PpoLoss::new(learning)),
    };
    Ok((work, name))
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn indices<const D: usize>(values: Vec<i32>, shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Waits for all that was asked of the device so far.
fn wait(device: &Device) -> Result<()> {
    device.sync().map_err(|error| anyhow!("{error:?}"))
}

fn read<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.clone().try_into_data();
    let data = data.map_err(|error| anyhow!("{error:?}"))?;
    data.try_to_vec().map_err(|error| anyhow!("{error:?}"))
}

/// Reads tensors of the latest run under the names by which they are compared.
struct Outputs(Vec<Digest>);

impl Outputs {
    fn new() -> Self {
        Self(vec![])
    }

    fn add<const D: usize>(mut self, name: &str, tensor: &Option<Tensor<D>>) -> Result<Self> {
        let tensor = tensor.as_ref().with_context(|| format!("no {name}"))?;
        self.0.push(Digest::of(name, &read(tensor)?));
        Ok(self)
    }
}

/// The gradient of a leaf.
fn gradient<const D: usize>(leaf: &Tensor<D>, gradients: &Gradients) -> Result<Tensor<D>> {
    leaf.grad(gradients).context("a leaf without a gradient")
}
