//! A whole update of a reward model.

use anyhow::{Context, Result, anyhow};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Bool, Device, Int, Tensor};

use super::model::{RewardModel, hidden_keys};
use super::{indices, wait};
use crate::data::texts;
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{ADAM_EPS, BETA_1, BETA_2, LEARNING_RATE, StepSizes, WEIGHT_DECAY};

pub struct RewardStep {
    device: Device,
    sizes: StepSizes,
    /// Away only while an update is made.
    model: Option<RewardModel>,
    optimizer: ModuleOptimizer,
    tokens: Tensor<2, Int>,
    hidden_keys: Tensor<4, Bool>,
    loss: f32,
}

impl RewardStep {
    pub fn new(device: Device, sizes: StepSizes) -> Result<Self> {
        let tokens = texts(&sizes).concat();
        let tokens = tokens.into_iter().map(|token| token as i32).collect();
        let shape = [sizes.sequences(), sizes.tokens];
        let optimizer = AdamWConfig::new()
            .with_beta_1(BETA_1 as f32)
            .with_beta_2(BETA_2 as f32)
            .with_epsilon(ADAM_EPS as f32)
            .with_weight_decay(WEIGHT_DECAY as f32)
            .init();
        Ok(Self {
            model: Some(RewardModel::new(&sizes, &device)?),
            optimizer,
            tokens: indices(tokens, shape, &device),
            hidden_keys: hidden_keys(sizes.tokens, &device),
            loss: f32::NAN,
            sizes,
            device,
        })
    }

    fn update(&mut self) -> Result<()> {
        let model = self.model.take().context("no model after an error")?;
        let rewards = model.forward(self.tokens.clone(), self.hidden_keys.clone());
        let pairs = rewards.reshape([self.sizes.pairs, 2]);
        let margins = pairs.clone().narrow(1, 0, 1) - pairs.narrow(1, 1, 1);
        let loss = log_sigmoid(margins).mean().neg();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(LEARNING_RATE, model, gradients));
        let loss = loss.try_into_scalar();
        self.loss = loss.map_err(|error| anyhow!("{error:?}"))?;
        wait(&self.device)
    }
}

impl Work for RewardStep {
    fn run(&mut self, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| self.update())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        Ok(vec![Digest::figure("loss", self.loss.into())])
    }
}
