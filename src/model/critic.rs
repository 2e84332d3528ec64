//! [`Critic`]: the value of each token, by a network of its own or by a head on the policy's trunk.

use super::{Head, ModelConfig, Parameters, Policy, Purpose, Trunk, model_parameters};
use crate::Result;
use crate::data::Capacity;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::nn::InputGradient;
use crate::kernels::policy::value_head::{
    ValueHeadBackwardIo, ValueHeadIo, value_head_backward, value_head_forward,
};

/// A network that estimates values, apart from the policy's.
struct Network {
    parameters: Parameters,
    trunk: Trunk,
}

/// Values of the states before each target's token.
pub struct Critic {
    network: Option<Network>,
    width: usize,
    values: Tensor,
    dvalues: Tensor,
}

impl Critic {
    /// A head on the trunk of the policy, which must have been made with [`Head::Value`]: value
    /// and policy share what they know, and the memory.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn on_trunk(gpu: &Gpu, config: &ModelConfig, capacity: Capacity) -> Result<Self> {
        Self::new(gpu, config, capacity, None)
    }

    /// A network of its own, of the policy's batch and any sizes: often started from the reward
    /// model, whose `score.weight` it shares by name.
    ///
    /// # Errors
    ///
    /// As [`Policy::new`].
    pub fn network(gpu: &Gpu, config: &ModelConfig, capacity: Capacity) -> Result<Self> {
        config.validate("config of the value model")?;
        let specs = model_parameters(config, &[Head::Score]);
        let network = Network {
            parameters: Parameters::allocate(gpu, specs, Purpose::Train)?,
            trunk: Trunk::new(gpu, config, capacity, Purpose::Train)?,
        };
        Self::new(gpu, config, capacity, Some(network))
    }

    fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        capacity: Capacity,
        network: Option<Network>,
    ) -> Result<Self> {
        let vector = |label: &str| Tensor::zeros::<f32>(gpu, label, &[capacity.targets]);
        Ok(Self {
            network,
            width: config.hidden_size,
            values: vector("values")?,
            dvalues: vector("d values")?,
        })
    }

    /// The parameters of a network of its own.
    pub fn parameters(&self) -> Option<&Parameters> {
        Some(&self.network.as_ref()?.parameters)
    }

    /// (N), written by [`Critic::record_forward`].
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// (N), read by the backward passes.
    pub fn dvalues(&self) -> &Tensor {
        &self.dvalues
    }

    /// The trunk, the parameters and the head that the values come from.
    fn parts<'a>(&'a self, policy: &'a Policy) -> Result<(&'a Trunk, Tensor, Tensor)> {
        let (trunk, parameters, name) = match &self.network {
            Some(network) => (&network.trunk, &network.parameters, "score.weight"),
            None => (policy.trunk(), policy.parameters(), "value_head.weight"),
        };
        let head = parameters.whole(name)?;
        let dw = head.gradient.reshape(&[self.width])?;
        Ok((trunk, head.weight.reshape(&[self.width])?, dw))
    }

    /// Appends the value of every target; a head on the policy's trunk needs its hidden states,
    /// so this goes after [`Policy::record_forward`].
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_forward(&self, plan: &mut Plan, policy: &Policy) -> Result<()> {
        if let Some(network) = &self.network {
            network
                .trunk
                .forward(plan, &network.parameters, policy.batch())?;
        }
        let (trunk, w, _) = self.parts(policy)?;
        let io = ValueHeadIo {
            hidden: trunk.hidden(),
            w: &w,
            targets: &policy.batch().targets,
            values: &self.values,
            counts: Some(&policy.batch().counts),
        };
        value_head_forward(plan, &io)
    }

    /// Appends the backward pass from [`Critic::dvalues`]. A head on the policy's trunk adds to
    /// the gradient of its hidden states: between [`Policy::record_head_backward`] and
    /// [`Policy::record_trunk_backward`].
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn record_backward(&self, plan: &mut Plan, policy: &Policy) -> Result<()> {
        let (trunk, w, dw) = self.parts(policy)?;
        let batch = policy.batch();
        let io = ValueHeadBackwardIo {
            hidden: trunk.hidden(),
            w: &w,
            targets: &batch.targets,
            target_lists: &batch.target_lists.lists,
            dvalues: &self.dvalues,
            dhidden: trunk.hidden_gradient()?,
            dw: &dw,
            counts: Some(&batch.counts),
        };
        match &self.network {
            None => value_head_backward(plan, &io, InputGradient::Add),
            Some(network) => {
                value_head_backward(plan, &io, InputGradient::Overwrite)?;
                network.trunk.backward(plan, &network.parameters, batch)
            }
        }
    }
}
