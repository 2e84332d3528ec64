//! prefgrad: plans that are recorded once and replayed.

mod kernels;
mod logits;
mod replay;
mod step;

use anyhow::Result;
use prefgrad::Gpu;

use crate::measure::Work;
use crate::rows::{Row, STEP_A, STEP_B};

pub fn open(row: Row) -> Result<(Box<dyn Work>, String)> {
    let gpu = Gpu::new()?;
    let device = format!("{} ({:?})", gpu.info().name, gpu.info().device_type);
    let work: Box<dyn Work> = match row {
        Row::StepA => Box::new(step::RewardStep::new(&gpu, &STEP_A)?),
        Row::StepB => Box::new(step::RewardStep::new(&gpu, &STEP_B)?),
        Row::Matmul512 => Box::new(kernels::matmul(&gpu, 512)?),
        Row::Matmul1024 => Box::new(kernels::matmul(&gpu, 1024)?),
        Row::Attention => Box::new(kernels::attention(&gpu)?),
        Row::LayerNorm => Box::new(kernels::layer_norm(&gpu)?),
        Row::LogSoftmax => Box::new(logits::log_softmax(&gpu)?),
        Row::PpoLoss => Box::new(logits::ppo_loss(&gpu)?),
    };
    Ok((work, device))
}
