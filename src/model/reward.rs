//! [`RewardModel`]: trunk, scalar head and losses, as plans recorded once.

use super::{
    DeviceBatch, Head, LanguageHead, ModelConfig, Parameters, Purpose, Trunk, model_parameters,
};
use crate::Result;
use crate::data::{Batch, Capacity};
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::METRICS;
use crate::kernels::preference::pairwise_loss::{
    PairwiseLossIo, PairwiseLossOptions, PairwiseStatisticsIo, pairwise_loss, pairwise_statistics,
};
use crate::kernels::preference::pooled_head::{
    PooledHeadBackwardIo, PooledHeadIo, pooled_head_backward, pooled_head_forward,
};

/// Rows of the ring of metrics: how many micro-batches may pass between two readings.
pub const METRIC_SLOTS: usize = 256;

/// Memory of the logits of language pretraining.
const LOGITS_BYTES: u64 = 64 << 20;

/// A reward model with its batch tensors and recorded plans.
pub struct RewardModel {
    gpu: Gpu,
    config: ModelConfig,
    parameters: Parameters,
    batch: DeviceBatch,
    trunk: Trunk,
    /// (A)
    rewards: Tensor,
    /// (A)
    drewards: Tensor,
    /// (P)
    losses: Tensor,
    /// (METRIC_SLOTS, METRICS)
    metrics: Tensor,
    score: Plan,
    train: Option<Plan>,
    language: Option<Plan>,
}

impl RewardModel {
    /// Allocates a model that only scores, with all parameters zero until they are initialised or
    /// loaded.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Model`] for a configuration that can't be, [`crate::Error::Limit`] and
    /// [`crate::Error::OutOfMemory`] for one that does not fit the device.
    pub fn to_score(gpu: &Gpu, config: &ModelConfig, capacity: Capacity) -> Result<Self> {
        Self::allocate(gpu, config, capacity, Purpose::Score)
    }

    /// As [`RewardModel::to_score`], with what training on comparisons needs; a capacity with
    /// targets adds what language pretraining needs.
    ///
    /// # Errors
    ///
    /// As [`RewardModel::to_score`].
    pub fn to_train(
        gpu: &Gpu,
        config: &ModelConfig,
        capacity: Capacity,
        loss: &PairwiseLossOptions,
    ) -> Result<Self> {
        let mut model = Self::allocate(gpu, config, capacity, Purpose::Train)?;
        model.train = Some(model.record_training(loss)?);
        if capacity.targets > 0 {
            model.language = Some(model.record_language()?);
        }
        Ok(model)
    }

    fn allocate(
        gpu: &Gpu,
        config: &ModelConfig,
        capacity: Capacity,
        purpose: Purpose,
    ) -> Result<Self> {
        config.validate("config")?;
        // A reward model learns the language through its token table.
        let config = &ModelConfig {
            tie_word_embeddings: true,
            ..config.clone()
        };
        let specs = model_parameters(config, &[Head::Score]);
        let vector = |label: &str, len: usize| Tensor::zeros::<f32>(gpu, label, &[len]);
        let mut model = Self {
            gpu: gpu.clone(),
            config: config.clone(),
            parameters: Parameters::allocate(gpu, specs, purpose)?,
            batch: DeviceBatch::new(gpu, capacity)?,
            trunk: Trunk::new(gpu, config, capacity, purpose)?,
            rewards: vector("rewards", capacity.answers)?,
            drewards: vector("d rewards", capacity.answers)?,
            losses: vector("pair losses", capacity.pairs)?,
            metrics: Tensor::zeros::<f32>(gpu, "metrics", &[METRIC_SLOTS, METRICS])?,
            score: Plan::new(gpu),
            train: None,
            language: None,
        };
        let mut score = Plan::new(gpu);
        model.record_forward(&mut score)?;
        model.score = score;
        Ok(model)
    }

    fn record_forward(&self, plan: &mut Plan) -> Result<()> {
        self.trunk.forward(plan, &self.parameters, &self.batch)?;
        let head = self.parameters.whole("score.weight")?;
        pooled_head_forward(
            plan,
            &PooledHeadIo {
                hidden: self.trunk.hidden(),
                w: &head.weight.reshape(&[self.config.hidden_size])?,
                answers: &self.batch.answers,
                rewards: &self.rewards,
                counts: Some(&self.batch.counts),
            },
        )
    }

    fn record_training(&self, loss: &PairwiseLossOptions) -> Result<Plan> {
        let mut plan = Plan::new(&self.gpu);
        self.record_forward(&mut plan)?;
        let pairs = self.batch.capacity.pairs;
        let rewards = self.rewards.window("rewards of pairs", 0, &[2 * pairs])?;
        let drewards = self
            .drewards
            .window("d rewards of pairs", 0, &[2 * pairs])?;
        let counts = Some(&self.batch.counts);
        pairwise_loss(
            &mut plan,
            &PairwiseLossIo {
                rewards: &rewards,
                pairs: &self.batch.pairs,
                losses: &self.losses,
                drewards: &drewards,
                counts,
            },
            loss,
        )?;
        pairwise_statistics(
            &mut plan,
            &PairwiseStatisticsIo {
                rewards: &rewards,
                losses: &self.losses,
                metrics: &self.metrics,
                counts,
            },
            1.0,
        )?;
        let head = self.parameters.whole("score.weight")?;
        pooled_head_backward(
            &mut plan,
            &PooledHeadBackwardIo {
                hidden: self.trunk.hidden(),
                w: &head.weight.reshape(&[self.config.hidden_size])?,
                answers: &self.batch.answers,
                pooled_lists: &self.batch.pooled_lists.lists,
                pooled_rows: &self.batch.pooled_lists.rows,
                drewards: &self.drewards,
                dhidden: self.trunk.hidden_gradient()?,
                dw: &head.gradient.reshape(&[self.config.hidden_size])?,
                counts,
            },
        )?;
        self.trunk
            .backward(&mut plan, &self.parameters, &self.batch)?;
        Ok(plan)
    }

    fn record_language(&self) -> Result<Plan> {
        let mut plan = Plan::new(&self.gpu);
        self.trunk
            .forward(&mut plan, &self.parameters, &self.batch)?;
        let capacity = self.batch.capacity;
        let config = &self.config;
        let head = LanguageHead::new(&self.gpu, config, capacity, Purpose::Train, LOGITS_BYTES)?;
        head.cross_entropy(
            &mut plan,
            &self.parameters,
            (&self.trunk, &self.batch),
            &Tensor::zeros::<f32>(&self.gpu, "logprobs", &[capacity.targets])?,
            &self.metrics,
        )?;
        self.trunk
            .backward(&mut plan, &self.parameters, &self.batch)?;
        Ok(plan)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Sizes and token ids.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Weights, gradients and moments.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What fits into one batch.
    pub fn capacity(&self) -> Capacity {
        self.batch.capacity
    }

    /// The recorded plans by name, for profiles.
    pub fn plans(&self) -> Vec<(&'static str, &Plan)> {
        let named = [
            ("score", Some(&self.score)),
            ("train", self.train.as_ref()),
            ("language", self.language.as_ref()),
        ];
        named
            .into_iter()
            .filter_map(|(name, plan)| Some((name, plan?)))
            .collect()
    }

    /// Submits forward, loss and backward of a batch with pairs; gradients add up.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if the batch is too large, or the model was made to score.
    pub fn accumulate(&self, batch: &Batch) -> Result<()> {
        self.replay(self.train.as_ref(), batch, "train on comparisons")
    }

    /// Submits forward, next-token loss and backward of a batch with targets; gradients add up.
    ///
    /// # Errors
    ///
    /// As [`RewardModel::accumulate`].
    pub fn accumulate_language(&self, batch: &Batch) -> Result<()> {
        self.replay(self.language.as_ref(), batch, "learn the language of texts")
    }

    fn replay(&self, plan: Option<&Plan>, batch: &Batch, what: &str) -> Result<()> {
        let plan = plan.ok_or_else(|| {
            crate::Error::shape("reward model", format!("it was not made to {what}"))
        })?;
        self.batch.upload(&self.gpu, batch)?;
        plan.submit();
        Ok(())
    }

    /// The reward of each of the batch's answers, in their order.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] if the batch is too large, and what the device reports.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn rewards(&self, batch: &Batch) -> Result<Vec<f32>> {
        self.batch.upload(&self.gpu, batch)?;
        self.score.submit();
        let mut rewards: Vec<f32> = self.rewards.read(&self.gpu)?;
        rewards.truncate(batch.answers.len());
        Ok(rewards)
    }

    /// The ring of metrics, a row a slot; waits for all submitted work.
    ///
    /// # Errors
    ///
    /// What the device reports.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_metrics(&self) -> Result<Vec<[f32; METRICS]>> {
        let values: Vec<f32> = self.metrics.read(&self.gpu)?;
        Ok(bytemuck::cast_slice(&values).to_vec())
    }
}
