//! A whole update of a reward model.

use anyhow::{Context, Result, ensure};
use prefgrad::Gpu;
use prefgrad::data::{Batch, PackOptions, Preference, TokenRecord, pack_all};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::RewardModel;
use prefgrad::train::{AdamW, Optimizer, capacity_for};

use crate::data::{SEED, config, texts};
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{ADAM_EPS, BETA_1, BETA_2, LEARNING_RATE, StepSizes, WEIGHT_DECAY};

pub struct RewardStep {
    model: RewardModel,
    optimizer: Optimizer,
    batch: Batch,
    loss: f32,
}

impl RewardStep {
    pub fn new(gpu: &Gpu, sizes: &StepSizes) -> Result<Self> {
        let capacity = capacity_for(sizes.sequences() * sizes.tokens, false);
        let loss = PairwiseLossOptions::default();
        let model = RewardModel::to_train(gpu, &config(sizes), capacity, &loss)?;
        model.parameters().initialise(gpu, SEED)?;
        let mut batches = pack_all(&records(sizes), capacity, PackOptions::default())?;
        ensure!(batches.len() == 1, "{} batches", batches.len());
        let mut batch = batches.remove(0);
        batch.counts.pair_scale = 1.0 / sizes.pairs as f32;
        let options = AdamW {
            beta1: BETA_1,
            beta2: BETA_2,
            eps: ADAM_EPS,
            weight_decay: WEIGHT_DECAY,
            ..AdamW::default()
        };
        Ok(Self {
            optimizer: Optimizer::new(gpu, model.parameters(), options)?,
            model,
            batch,
            loss: f32::NAN,
        })
    }
}

/// Pairs without a stored prompt: each text stands for itself, as for the other peers.
fn records(sizes: &StepSizes) -> Vec<TokenRecord> {
    let texts = texts(sizes);
    let record = |(index, pair): (usize, &[Vec<u32>])| TokenRecord {
        line: index + 1,
        prompt: vec![],
        answers: pair.to_vec(),
        preferences: vec![Preference {
            chosen: 0,
            rejected: 1,
            weight: 1.0,
            margin: 0.0,
        }],
    };
    texts.chunks_exact(2).enumerate().map(record).collect()
}

impl Work for RewardStep {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            self.model.accumulate(&self.batch)?;
            self.optimizer.step(LEARNING_RATE)?;
            let metrics = self.model.read_metrics()?;
            self.loss = metrics.first().context("no metrics")?[0];
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        Ok(vec![Digest::figure("loss", self.loss.into())])
    }
}
