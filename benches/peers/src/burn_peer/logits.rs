//! What starts from rows of logits.

use anyhow::{Context, Result};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};

use super::{Outputs, gradient, indices, read, tensor, wait};
use crate::data::{LogitsData, PpoData};
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{CLIP_RANGE, LOG_SOFTMAX, PPO};

fn columns(targets: &[u32], device: &Device) -> Tensor<2, Int> {
    let targets: Vec<i32> = targets.iter().map(|&token| token as i32).collect();
    let rows = targets.len();
    indices(targets, [rows, 1], device)
}

pub struct LogSoftmax {
    device: Device,
    logits: Tensor<2>,
    targets: Tensor<2, Int>,
    logprobs: Option<Tensor<2>>,
}

impl LogSoftmax {
    pub fn new(device: Device) -> Self {
        let data = LogitsData::for_log_softmax();
        Self {
            targets: columns(&data.targets, &device),
            logits: tensor(data.logits, LOG_SOFTMAX, &device),
            logprobs: None,
            device,
        }
    }
}

impl Work for LogSoftmax {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let all = log_softmax(self.logits.clone(), 1);
            self.logprobs = Some(all.gather(1, self.targets.clone()));
        }
        wait(&self.device)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        Ok(Outputs::new().add("logprobs", &self.logprobs)?.0)
    }
}

pub struct PpoLoss {
    device: Device,
    logits: Tensor<2>,
    targets: Tensor<2, Int>,
    old: Tensor<2>,
    advantages: Tensor<2>,
    loss: Option<Tensor<1>>,
    dlogits: Option<Tensor<2>>,
}

impl PpoLoss {
    pub fn new(device: Device) -> Self {
        let data = PpoData::new();
        let column = |values| tensor(values, [PPO[0], 1], &device);
        Self {
            targets: columns(&data.now.targets, &device),
            old: column(data.old),
            advantages: column(data.advantages),
            logits: tensor(data.now.logits, PPO, &device).require_grad(),
            loss: None,
            dlogits: None,
            device,
        }
    }

    fn loss(&self) -> Tensor<1> {
        let logprobs = log_softmax(self.logits.clone(), 1).gather(1, self.targets.clone());
        let ratios = (logprobs - self.old.clone()).exp();
        let clipped = ratios.clone().clamp(1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE);
        let gain = ratios * self.advantages.clone();
        let clipped_gain = clipped * self.advantages.clone();
        gain.min_pair(clipped_gain).mean().neg()
    }
}

impl Work for PpoLoss {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let loss = self.loss();
            let gradients = loss.backward();
            self.dlogits = Some(gradient(&self.logits, &gradients)?);
            self.loss = Some(loss);
        }
        wait(&self.device)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        let loss = self.loss.as_ref().context("no loss")?;
        let loss = read(loss)?.first().copied().context("an empty loss")?;
        let outputs = Outputs(vec![Digest::figure("loss", loss.into())]);
        Ok(outputs.add("dlogits", &self.dlogits)?.0)
    }
}
