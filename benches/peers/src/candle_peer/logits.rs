//! What starts from rows of logits.

use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use candle_nn::ops::log_softmax;

use super::{Outputs, gradient, leaf, tensor};
use crate::data::{LogitsData, PpoData};
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{CLIP_RANGE, LOG_SOFTMAX, PPO};

fn columns(targets: Vec<u32>) -> Result<Tensor> {
    let rows = targets.len();
    Ok(Tensor::from_vec(targets, (rows, 1), &Device::Cpu)?)
}

pub struct LogSoftmax {
    logits: Tensor,
    targets: Tensor,
    outputs: Outputs,
}

impl LogSoftmax {
    pub fn new() -> Result<Self> {
        let [rows, vocab] = LOG_SOFTMAX;
        let data = LogitsData::for_log_softmax();
        Ok(Self {
            targets: columns(data.targets)?,
            logits: tensor(data.logits, (rows, vocab))?,
            outputs: Outputs::default(),
        })
    }
}

impl Work for LogSoftmax {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let logprobs = log_softmax(&self.logits, 1)?.gather(&self.targets, 1)?;
            self.outputs = Outputs(vec![("logprobs", logprobs)]);
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        self.outputs.digests()
    }
}

pub struct PpoLoss {
    logits: Var,
    targets: Tensor,
    old: Tensor,
    advantages: Tensor,
    outputs: Outputs,
}

impl PpoLoss {
    pub fn new() -> Result<Self> {
        let [rows, vocab] = PPO;
        let data = PpoData::new();
        Ok(Self {
            targets: columns(data.now.targets)?,
            logits: leaf(data.now.logits, (rows, vocab))?,
            old: tensor(data.old, (rows, 1))?,
            advantages: tensor(data.advantages, (rows, 1))?,
            outputs: Outputs::default(),
        })
    }

    fn loss(&self) -> Result<Tensor> {
        let logprobs = log_softmax(&self.logits, 1)?.gather(&self.targets, 1)?;
        let ratios = (logprobs - &self.old)?.exp()?;
        let clipped = ratios.clamp(1.0 - CLIP_RANGE as f32, 1.0 + CLIP_RANGE as f32)?;
        let gain = (ratios * &self.advantages)?;
        let clipped_gain = (clipped * &self.advantages)?;
        Ok(gain.minimum(&clipped_gain)?.mean_all()?.neg()?)
    }
}

impl Work for PpoLoss {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let loss = self.loss()?;
            let gradients = loss.backward()?;
            let dlogits = gradient(&self.logits, &gradients)?;
            self.outputs = Outputs(vec![("loss", loss), ("dlogits", dlogits)]);
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        let mut digests = self.outputs.digests()?;
        if let Some(loss) = digests.first_mut() {
            let value: f32 = self.outputs.0[0].1.to_scalar()?;
            *loss = Digest::figure("loss", value.into());
        }
        Ok(digests)
    }
}
