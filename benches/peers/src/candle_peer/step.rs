//! A whole update of a reward model.

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use super::model::{RewardModel, causal_mask};
use crate::data::texts;
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{ADAM_EPS, BETA_1, BETA_2, LEARNING_RATE, StepSizes, WEIGHT_DECAY};

pub struct RewardStep {
    sizes: StepSizes,
    model: RewardModel,
    optimizer: AdamW,
    tokens: Tensor,
    mask: Tensor,
    loss: f32,
}

impl RewardStep {
    pub fn new(sizes: StepSizes) -> Result<Self> {
        let (model, parameters) = RewardModel::new(&sizes)?;
        let options = ParamsAdamW {
            lr: LEARNING_RATE,
            beta1: BETA_1,
            beta2: BETA_2,
            eps: ADAM_EPS,
            weight_decay: WEIGHT_DECAY,
        };
        let shape = (sizes.sequences(), sizes.tokens);
        Ok(Self {
            model,
            optimizer: AdamW::new(parameters, options)?,
            tokens: Tensor::from_vec(texts(&sizes).concat(), shape, &Device::Cpu)?,
            mask: causal_mask(sizes.tokens)?,
            loss: f32::NAN,
            sizes,
        })
    }

    fn update(&mut self) -> Result<()> {
        let rewards = self.model.forward(&self.tokens, &self.mask)?;
        let pairs = rewards.reshape((self.sizes.pairs, 2))?;
        let margins = (pairs.narrow(1, 0, 1)? - pairs.narrow(1, 1, 1)?)?;
        let loss = softplus(&margins.neg()?)?.mean_all()?;
        self.optimizer.backward_step(&loss)?;
        self.loss = loss.to_scalar()?;
        Ok(())
    }
}

/// `ln(1 + exp(x))` without an overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let rest = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((x.relu()? + rest)?)
}

impl Work for RewardStep {
    fn run(&mut self, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| self.update())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        Ok(vec![Digest::figure("loss", self.loss.into())])
    }
}
