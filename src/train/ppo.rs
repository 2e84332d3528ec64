//! [`PpoTrainer`]: proximal policy optimisation against a reward.
//!
//! Schulman et al. 2017 (arXiv 1707.06347); for language models Ziegler et al. 2019 (arXiv
//! 1909.08593) and Ouyang et al. 2022 (arXiv 2203.02155, section 3.5).

use serde::{Deserialize, Serialize};

use super::policy_options::RolloutOptions;
use super::policy_run::{PolicyRun, Recorded, ValueModel};
use super::policy_step::{PolicyStep, Warning};
use super::reward_source::Reward;
use super::rollout::{Group, RolloutBuffer, Slot};
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::policy::experience::{ExperienceIo, experience};
use crate::kernels::policy::gae::{GaeIo, GaeOptions, gae};
use crate::kernels::policy::grpo_loss::GrpoLossType;
use crate::kernels::policy::ppo_loss::{PpoLossIo, PpoLossOptions, ppo_loss};
use crate::kernels::policy::whiten::{WhitenIo, WhitenOptions, partial_rows, whiten};
use crate::kernels::policy::{KlControl, KlEstimator, POLICY_METRICS};
use crate::model::{Critic, ModelConfig, Policy};
use crate::{Error, Result};

/// Where the divergence from the reference is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlPenalty {
    /// Token by token in the reward, by the estimate k1.
    RewardK1,
    /// Token by token in the reward, by the estimate k3.
    RewardK3,
    /// In the loss, by the estimate k2.
    LossK2,
    /// In the loss, by the estimate k3.
    LossK3,
}

/// How a policy is trained by PPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PpoOptions {
    /// Sampling, updates and the divergence from the reference.
    pub rollout: RolloutOptions,
    /// Where values come from.
    pub value: ValueModel,
    /// Ratios of new to old probability count within `1 ± clip_range`.
    pub clip_range: f32,
    /// Values count within this distance of the old ones; `None`: everywhere.
    pub clip_range_value: Option<f32>,
    /// Factor of the value loss.
    pub vf_coef: f32,
    /// Factor of the entropy bonus.
    pub entropy_coef: f32,
    /// Discount of a token's future.
    pub gamma: f32,
    /// Decay of the advantage's memory: GAE's λ.
    pub lambda: f32,
    /// Where the divergence from the reference is charged.
    pub kl_penalty: KlPenalty,
    /// Brings the advantages of each rollout to mean 0 and variance 1.
    pub whiten_advantages: bool,
    /// Puts the reward of an answer that is shorter than `max_new_tokens` one step behind its last
    /// token, as TRL's `PPOTrainer` does, with a value there: for comparisons with it. Without, the
    /// reward lands on the last token.
    pub trl_compat: bool,
}

impl Default for PpoOptions {
    /// TRL's, but for one answer a prompt.
    fn default() -> Self {
        Self {
            rollout: RolloutOptions {
                samples: 1,
                epochs: 4,
                minibatches: 1,
                ..RolloutOptions::default()
            },
            value: ValueModel::Head,
            clip_range: 0.2,
            clip_range_value: Some(0.2),
            vf_coef: 0.1,
            entropy_coef: 0.0,
            gamma: 1.0,
            lambda: 0.95,
            kl_penalty: KlPenalty::RewardK1,
            whiten_advantages: true,
            trl_compat: false,
        }
    }
}

/// Trains a policy by PPO.
pub struct PpoTrainer {
    run: PolicyRun,
    options: PpoOptions,
}

impl PpoTrainer {
    /// A run over `prompts`, in token ids. The policy's weights are zero until they are loaded
    /// into [`PpoTrainer::policy`]'s parameters; then [`PpoTrainer::start`] makes them the
    /// reference.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for options that cannot be meant, [`Error::Data`] for a prompt that is
    /// empty or longer than the context less the answer, and what the models refuse.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: PpoOptions,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Self> {
        let rollout = options.rollout.clone();
        // The mean over all tokens.
        let mean = GrpoLossType::Dapo;
        let value = Some(options.value);
        let mut run = PolicyRun::new(
            gpu,
            config,
            rollout,
            value,
            mean,
            prompts,
            options.trl_compat,
        )?;
        let recorded = record(&run, &options)?;
        run.install(recorded)?;
        Ok(Self { run, options })
    }

    /// Makes the policy as it is now the reference.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn start(&mut self) -> Result<()> {
        self.run.take_reference()
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.run.policy
    }

    /// The value model. Like the policy's, the weights of a network of its own are zero until they
    /// are loaded, usually those of the reward model; a head on the policy's trunk may start at
    /// zero.
    pub fn critic(&self) -> Option<&Critic> {
        self.run.critic.as_ref()
    }

    /// The last rollout's answers and what the policy learnt from each token.
    pub fn buffer(&self) -> &RolloutBuffer {
        &self.run.buffer
    }

    /// The run's options.
    pub fn options(&self) -> &PpoOptions {
        &self.options
    }

    /// Rollouts made.
    pub fn rollouts(&self) -> u64 {
        self.run.rollouts()
    }

    /// Whether all rollouts were made, or the divergence passed its limit.
    pub fn is_over(&self) -> bool {
        self.run.is_over()
    }

    /// One rollout: sample answers, have them judged, estimate how much better each token was than
    /// expected, and raise the probability of those that were.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] for a reward, loss or gradient that is not finite; [`Error::Shape`]
    /// before the run was started, and for another number of rewards than answers; what the reward
    /// and the device report. After an error about a reward the weights are as they were.
    pub fn step(&mut self, reward: &mut dyn Reward) -> Result<(PolicyStep, Vec<Warning>)> {
        let groups: Vec<Group> = self.run.sample(reward)?;
        self.run.remember(&groups)?;
        let step = self.run.learn(&groups)?;
        let warnings = self.run.warnings(&step);
        Ok((step, warnings))
    }
}

fn record(run: &PolicyRun, options: &PpoOptions) -> Result<Recorded> {
    let critic = run
        .critic
        .as_ref()
        .ok_or_else(|| Error::shape("PPO", "it needs values"))?;
    let (gpu, batch) = (run.gpu(), run.policy.batch());
    let targets = batch.capacity.targets;
    let partials_len = POLICY_METRICS * targets.div_ceil(64);
    let partials = Tensor::zeros::<f32>(gpu, "loss partials", &[partials_len])?;
    let mut compare = Plan::new(gpu);
    if options.whiten_advantages {
        let rows = partial_rows(run.slots().len(), targets);
        let io = WhitenIo {
            experience: run.buffer.experience(),
            lens: run.buffer.lens(),
            partials: &Tensor::zeros::<f32>(gpu, "whitening partials", &[rows, 4])?,
        };
        whiten(&mut compare, &io, &WhitenOptions::default())?;
    }
    let (mut remember, mut loss) = (Vec::new(), Vec::new());
    for slot in run.slots() {
        let mut plan = Plan::new(gpu);
        record_experience(&mut plan, run, critic, slot, options)?;
        remember.push(plan);
        let mut plan = Plan::new(gpu);
        let io = PpoLossIo {
            logprobs: run.policy.logprobs(),
            experience: &slot.experience,
            values: critic.values(),
            gradients: run.policy.gradients(),
            dvalues: critic.dvalues(),
            partials: &partials,
            metrics: &run.metrics,
            kl_control: &run.kl_control,
            counts: Some(&batch.counts),
        };
        ppo_loss(&mut plan, &io, &loss_options(options))?;
        loss.push(plan);
    }
    Ok(Recorded {
        remember,
        compare,
        loss,
    })
}

fn record_experience(
    plan: &mut Plan,
    run: &PolicyRun,
    critic: &Critic,
    slot: &Slot,
    options: &PpoOptions,
) -> Result<()> {
    let batch = run.policy.batch();
    let counts = Some(&batch.counts);
    let io = ExperienceIo {
        answer_lists: &batch.answer_lists.lists,
        answer_rows: &batch.answer_lists.rows,
        targets: &batch.targets,
        logprobs: run.policy.logprobs(),
        ref_logprobs: Some(&run.ref_logprobs),
        values: Some(critic.values()),
        experience: &slot.experience,
        responses: &slot.responses,
        counts,
    };
    experience(plan, &io)?;
    let (charged, kl_estimator) = match options.kl_penalty {
        KlPenalty::RewardK1 => (true, KlEstimator::K1),
        KlPenalty::RewardK3 => (true, KlEstimator::K3),
        KlPenalty::LossK2 | KlPenalty::LossK3 => (false, KlEstimator::K1),
    };
    let free = Tensor::zeros::<KlControl>(run.gpu(), "no penalty", &[1])?;
    let io = GaeIo {
        answer_lists: &batch.answer_lists.lists,
        answer_rows: &batch.answer_lists.rows,
        experience: &slot.experience,
        responses: &slot.responses,
        kl_control: if charged { &run.kl_control } else { &free },
        counts,
    };
    let options = GaeOptions {
        gamma: options.gamma,
        lambda: options.lambda,
        kl_estimator,
    };
    gae(plan, &io, &options)
}

fn loss_options(options: &PpoOptions) -> PpoLossOptions {
    PpoLossOptions {
        clip_range: options.clip_range,
        clip_range_value: options.clip_range_value,
        vf_coef: options.vf_coef,
        entropy_coef: options.entropy_coef,
        kl_in_loss: match options.kl_penalty {
            KlPenalty::RewardK1 | KlPenalty::RewardK3 => None,
            KlPenalty::LossK2 => Some(KlEstimator::K2),
            KlPenalty::LossK3 => Some(KlEstimator::K3),
        },
        ..PpoLossOptions::default()
    }
}
