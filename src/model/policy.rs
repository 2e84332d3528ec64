//! [`Policy`]: a language model whose answers are scored, and improved.

use super::{
    DeviceBatch, Head, LanguageHead, ModelConfig, Parameters, Purpose, Trunk, model_parameters,
};
use crate::data::Capacity;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::policy::{TokenGradient, TokenLogprob};
use crate::{Error, Result};

/// How a policy's log-probabilities are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyOptions {
    /// Logits are divided by this before the softmax: the temperature that answers are sampled at.
    pub temperature: f32,
    /// The most memory that logits may take. Where those of a whole batch fit, the backward pass
    /// reads them again; otherwise it computes them anew, some targets at a time.
    pub logits_bytes: u64,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            logits_bytes: 64 << 20,
        }
    }
}

/// A language model with its batch tensors. It records forward and backward passes around
/// whatever loss a trainer puts between them.
pub struct Policy {
    gpu: Gpu,
    config: ModelConfig,
    parameters: Parameters,
    batch: DeviceBatch,
    trunk: Trunk,
    head: LanguageHead,
    temperature: f32,
    /// (N), of [`TokenLogprob`].
    logprobs: Tensor,
    /// (N), of [`TokenGradient`].
    gradients: Tensor,
}

impl Policy {
    /// Allocates a model, all parameters zero until they are initialised or loaded; `heads` are
    /// [`Head::Language`], and [`Head::Value`] where the policy's own trunk carries the values.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for a configuration that can't be, [`Error::Limit`] and
    /// [`Error::OutOfMemory`] for one that does not fit the device, [`Error::Shape`] for a
    /// temperature that is not positive.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        heads: &[Head],
        capacity: Capacity,
        purpose: Purpose,
        options: PolicyOptions,
    ) -> Result<Self> {
        config.validate("config")?;
        let temperature = options.temperature;
        if !(temperature.is_finite() && temperature > 0.0) {
            let detail = format!("temperature is {temperature}, expected a positive number");
            return Err(Error::shape("policy", detail));
        }
        let targets = capacity.targets;
        Ok(Self {
            gpu: gpu.clone(),
            config: config.clone(),
            parameters: Parameters::allocate(gpu, model_parameters(config, heads), purpose)?,
            batch: DeviceBatch::new(gpu, capacity)?,
            trunk: Trunk::new(gpu, config, capacity, purpose)?,
            head: LanguageHead::new(gpu, config, capacity, purpose, options.logits_bytes)?,
            temperature,
            logprobs: Tensor::zeros::<TokenLogprob>(gpu, "logprobs", &[targets])?,
            gradients: Tensor::zeros::<TokenGradient>(gpu, "d logprobs", &[targets])?,
        })
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

    /// The batch's tensors, which [`DeviceBatch::upload`] fills.
    pub fn batch(&self) -> &DeviceBatch {
        &self.batch
    }

    /// The decoder.
    pub fn trunk(&self) -> &Trunk {
        &self.trunk
    }

    /// The head's buffers.
    pub fn head(&self) -> &LanguageHead {
        &self.head
    }

    /// (N), of [`TokenLogprob`]: what [`Policy::record_forward`] writes.
    pub fn logprobs(&self) -> &Tensor {
        &self.logprobs
    }

    /// (N), of [`TokenGradient`]: what a loss writes and [`Policy::record_head_backward`] reads.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// Appends the log-probabilities of the batch's targets.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_forward(&self, plan: &mut Plan) -> Result<()> {
        self.record_forward_of(plan, &self.parameters, &self.logprobs)
    }

    /// The same with the weights of another model of the same sizes, such as the reference, into
    /// `logprobs`; the activations are overwritten.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_forward_of(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        logprobs: &Tensor,
    ) -> Result<()> {
        self.trunk.forward(plan, parameters, &self.batch)?;
        let states = (&self.trunk, &self.batch);
        self.head
            .forward(plan, parameters, states, logprobs, self.temperature)
    }

    /// Appends the way from [`Policy::gradients`] to the trunk's hidden states, which are
    /// overwritten, and to the head's weights, which are added to.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_head_backward(&self, plan: &mut Plan) -> Result<()> {
        let states = (&self.trunk, &self.batch);
        let tokens = (&self.logprobs, &self.gradients);
        self.head
            .backward(plan, &self.parameters, states, tokens, self.temperature)
    }

    /// Appends the way from the gradient of the trunk's hidden states to its parameters.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_trunk_backward(&self, plan: &mut Plan) -> Result<()> {
        self.trunk.backward(plan, &self.parameters, &self.batch)
    }
}
