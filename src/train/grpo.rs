//! [`GrpoTrainer`]: policies improved by comparing several answers to one prompt.
//!
//! GRPO (Shao et al. 2024, arXiv 2402.03300) and its variants, GSPO (Zheng et al. 2025, arXiv
//! 2507.18071), and RLOO (Ahmadian et al. 2024, arXiv 2402.14740). None needs a value model: an
//! answer is as good as it is better than the others of its group.

use serde::{Deserialize, Serialize};

use super::policy_options::RolloutOptions;
use super::policy_run::{PolicyRun, Recorded};
use super::policy_step::{PolicyStep, Warning};
use super::reward_source::Reward;
use super::rollout::{Group, RolloutBuffer, Slot};
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::policy::POLICY_METRICS;
use crate::kernels::policy::experience::{ExperienceIo, experience};
use crate::kernels::policy::group_advantage::{
    GroupAdvantageIo, GroupAdvantageOptions, GroupBaseline, GroupScale, group_advantage,
};
use crate::kernels::policy::grpo_loss::{
    GrpoLossIo, GrpoLossOptions, GrpoLossType, RatioLevel, grpo_loss,
};
use crate::model::{ModelConfig, Policy};
use crate::{Error, Result};

/// How a policy is trained by GRPO or RLOO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpoOptions {
    /// Sampling, updates and the divergence from the reference; `samples` is the group's size.
    pub rollout: RolloutOptions,
    /// What an answer is compared with: the mean of its group, or of the others in it (RLOO).
    pub baseline: GroupBaseline,
    /// What the difference is divided by.
    pub scale: GroupScale,
    /// Whose ratio is clipped: each token's, or the whole answer's.
    pub level: RatioLevel,
    /// How the losses of tokens are averaged.
    pub loss_type: GrpoLossType,
    /// The ratio counts from `1 - clip_low`...
    pub clip_low: f32,
    /// ... to `1 + clip_high`.
    pub clip_high: f32,
    /// A bound on the ratio where the advantage is negative.
    pub delta: Option<f32>,
    /// Multiplies the divergence in the loss by the ratio.
    pub kl_bias_correction: bool,
    /// Takes the divergence off the reward of the whole answer, as RLOO does, and not off the
    /// loss of each token.
    pub kl_in_reward: bool,
}

impl Default for GrpoOptions {
    /// TRL's GRPO, but with a divergence that is charged a little.
    fn default() -> Self {
        Self {
            rollout: RolloutOptions {
                samples: 8,
                epochs: 1,
                minibatches: 1,
                ..RolloutOptions::default()
            },
            baseline: GroupBaseline::Mean,
            scale: GroupScale::Group,
            level: RatioLevel::Token,
            loss_type: GrpoLossType::Dapo,
            clip_low: 0.2,
            clip_high: 0.2,
            delta: None,
            kl_bias_correction: true,
            kl_in_reward: false,
        }
    }
}

impl GrpoOptions {
    /// TRL's RLOO: a leave-one-out baseline, the ratio of whole answers, the divergence in the
    /// reward.
    pub fn rloo() -> Self {
        Self {
            baseline: GroupBaseline::LeaveOneOut,
            scale: GroupScale::None,
            level: RatioLevel::SequenceSum,
            loss_type: GrpoLossType::Grpo,
            kl_in_reward: true,
            ..Self::default()
        }
    }
}

/// Trains a policy by GRPO or RLOO.
pub struct GrpoTrainer {
    run: PolicyRun,
    options: GrpoOptions,
}

impl GrpoTrainer {
    /// A run over `prompts`, in token ids. The policy's weights are zero until they are loaded
    /// into [`GrpoTrainer::policy`]'s parameters; then [`GrpoTrainer::start`] makes them the
    /// reference.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for options that cannot be meant, [`Error::Data`] for a prompt that is
    /// empty or longer than the context less the answer, and what the model refuses.
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: GrpoOptions,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Self> {
        let rollout = &options.rollout;
        if rollout.samples < 2 {
            let detail = "samples is 1: an answer is judged by the others of its group, so there \
                          must be two at least";
            return Err(Error::shape("GRPO options", detail));
        }
        if rollout.kl.target.is_some() {
            let detail = "kl.target is for PPO: here the coefficient stays as it is";
            return Err(Error::shape("GRPO options", detail));
        }
        let loss_type = options.loss_type;
        let mut run = PolicyRun::new(
            gpu,
            config,
            rollout.clone(),
            None,
            loss_type,
            prompts,
            false,
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

    /// The last rollout's answers and what the policy learnt from each token.
    pub fn buffer(&self) -> &RolloutBuffer {
        &self.run.buffer
    }

    /// The run's options.
    pub fn options(&self) -> &GrpoOptions {
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

    /// One rollout: sample a group of answers to each prompt, have them judged, and raise the
    /// probability of those that are better than their group.
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

fn record(run: &PolicyRun, options: &GrpoOptions) -> Result<Recorded> {
    let (gpu, batch) = (run.gpu(), run.policy.batch());
    let counts = Some(&batch.counts);
    let kl_coef = options.rollout.kl.coef as f32;
    let (in_reward, in_loss) = match options.kl_in_reward {
        true => (kl_coef, 0.0),
        false => (0.0, kl_coef),
    };
    let mut compare = Plan::new(gpu);
    let io = GroupAdvantageIo {
        responses: run.buffer.responses(),
    };
    let advantage = GroupAdvantageOptions {
        baseline: options.baseline,
        scale: options.scale,
        kl_coef: in_reward,
        ..GroupAdvantageOptions::default()
    };
    group_advantage(&mut compare, &io, &advantage)?;
    let partials_len = POLICY_METRICS * batch.capacity.answers;
    let partials = Tensor::zeros::<f32>(gpu, "loss partials", &[partials_len])?;
    let loss_options = GrpoLossOptions {
        clip_low: options.clip_low,
        clip_high: options.clip_high,
        delta: options.delta,
        beta: in_loss,
        kl_bias_correction: options.kl_bias_correction,
        level: options.level,
        ..GrpoLossOptions::default()
    };
    let (mut remember, mut loss) = (Vec::new(), Vec::new());
    for slot in run.slots() {
        let mut plan = Plan::new(gpu);
        record_experience(&mut plan, run, slot)?;
        remember.push(plan);
        let mut plan = Plan::new(gpu);
        let io = GrpoLossIo {
            answer_lists: &batch.answer_lists.lists,
            answer_rows: &batch.answer_lists.rows,
            logprobs: run.policy.logprobs(),
            experience: &slot.experience,
            responses: &slot.responses,
            gradients: run.policy.gradients(),
            partials: &partials,
            metrics: &run.metrics,
            counts,
        };
        grpo_loss(&mut plan, &io, &loss_options)?;
        loss.push(plan);
    }
    Ok(Recorded {
        remember,
        compare,
        loss,
    })
}

fn record_experience(plan: &mut Plan, run: &PolicyRun, slot: &Slot) -> Result<()> {
    let batch = run.policy.batch();
    let io = ExperienceIo {
        answer_lists: &batch.answer_lists.lists,
        answer_rows: &batch.answer_lists.rows,
        targets: &batch.targets,
        logprobs: run.policy.logprobs(),
        ref_logprobs: Some(&run.ref_logprobs),
        values: None,
        experience: &slot.experience,
        responses: &slot.responses,
        counts: Some(&batch.counts),
    };
    experience(plan, &io)
}
