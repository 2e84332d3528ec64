//! [`PolicyRun`]: the part of a policy's training that all algorithms share: sample, judge,
//! remember, learn.

use super::policy_options::RolloutOptions;
use super::policy_step::{Health, PolicyStep, Warning, describe, merge};
use super::reward_source::{Reward, Sample, judge};
use super::rollout::{Group, RolloutBuffer, Slot, policy_capacity};
use super::{KlController, Optimizer, Schedule, UpdateStatistics};
use crate::data::{Counts, DataOrder, Random, split_mix};
use crate::gpu::{Gpu, Plan, Tensor, all_ready, submit_together};
use crate::kernels::policy::grpo_loss::GrpoLossType;
use crate::kernels::policy::{KlControl, POLICY_METRICS, TokenLogprob};
use crate::model::{
    Completion, Critic, Finish, GenerateOptions, Generator, GeneratorCapacity, Head, ModelConfig,
    Parameters, Policy, PolicyOptions, Purpose, model_parameters,
};
use crate::{Error, Result};

/// Streams of the run's seed.
const SAMPLING: u64 = 0x5a;
const MINIBATCHES: u64 = 0x3b;

/// Where the values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueModel {
    /// A head on the policy's trunk.
    Head,
    /// A network of its own, of the policy's sizes.
    Network,
}

/// What an algorithm records for each slot, and once for a whole rollout.
pub(super) struct Recorded {
    /// After the forward passes over a slot's batch: fills its experience.
    pub remember: Vec<Plan>,
    /// After all slots: advantages over the whole rollout.
    pub compare: Plan,
    /// Between forward and backward of a slot's batch: the loss.
    pub loss: Vec<Plan>,
}

/// A policy, its reference, perhaps a critic, and everything between prompts and updates.
pub(super) struct PolicyRun {
    pub options: RolloutOptions,
    /// How the losses of tokens are averaged.
    loss_type: GrpoLossType,
    pub policy: Policy,
    pub critic: Option<Critic>,
    pub kl: KlController,
    pub kl_control: Tensor,
    pub buffer: RolloutBuffer,
    pub ref_logprobs: Tensor,
    /// (micro-batches of a rollout, POLICY_METRICS)
    pub metrics: Tensor,
    reference: Parameters,
    generator: Generator,
    prompts: Vec<Vec<u32>>,
    order: DataOrder,
    optimizers: Vec<Optimizer>,
    collect: Plan,
    forward: Plan,
    backward: Plan,
    recorded: Option<Recorded>,
    health: Health,
    rollouts: u64,
    skipped: u32,
    over: bool,
    has_reference: bool,
}

/// What learning from one rollout left in the ring of metrics.
#[derive(Debug, Default)]
struct Learnt {
    updates: u64,
    tokens: usize,
    /// Rows of each epoch.
    epochs: Vec<std::ops::Range<usize>>,
    /// Rows of the first update.
    first: usize,
}

impl PolicyRun {
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        options: RolloutOptions,
        value: Option<ValueModel>,
        loss_type: GrpoLossType,
        prompts: Vec<Vec<u32>>,
        trl_compat: bool,
    ) -> Result<Self> {
        options.validate()?;
        let longest = options.check_prompts(&prompts, config)?;
        let mut capacity = policy_capacity(options.batch_tokens);
        capacity.targets += usize::from(trl_compat) * capacity.answers;
        let heads: &[Head] = match value {
            Some(ValueModel::Head) => &[Head::Language, Head::Value],
            Some(ValueModel::Network) | None => &[Head::Language],
        };
        let policy_options = PolicyOptions {
            temperature: options.temperature,
            logits_bytes: options.logits_bytes,
        };
        let policy = Policy::new(gpu, config, heads, capacity, Purpose::Train, policy_options)?;
        let critic = match value {
            None => None,
            Some(ValueModel::Head) => Some(Critic::on_trunk(gpu, config, capacity)?),
            Some(ValueModel::Network) => Some(Critic::network(gpu, config, capacity)?),
        };
        let specs = model_parameters(config, heads);
        let reference = Parameters::allocate(gpu, specs, Purpose::Score)?;
        let group_tokens = longest + options.samples * options.max_new_tokens;
        let buffer = RolloutBuffer::new(
            gpu,
            capacity,
            options.minibatches,
            options.prompts.div_ceil(options.minibatches),
            (options.samples, group_tokens),
        )?
        .with_tails_below(usize::from(trl_compat) * options.max_new_tokens);
        let rows = options.epochs * buffer.slots().len();
        let generator = Generator::new(
            gpu,
            config,
            policy.parameters(),
            generator_capacity(&options, longest),
        )?;
        let relative = value.is_none() && options.samples > 1;
        let mut run = Self {
            kl: KlController::new(options.kl),
            kl_control: Tensor::zeros::<KlControl>(gpu, "KL control", &[1])?,
            ref_logprobs: Tensor::zeros::<TokenLogprob>(
                gpu,
                "reference logprobs",
                &[capacity.targets],
            )?,
            metrics: Tensor::zeros::<f32>(gpu, "policy metrics", &[rows, POLICY_METRICS])?,
            order: DataOrder::new(options.seed, prompts.len()),
            health: Health::new(options.kl.target.or(options.kl.limit), relative),
            optimizers: Vec::new(),
            collect: Plan::new(gpu),
            forward: Plan::new(gpu),
            backward: Plan::new(gpu),
            recorded: None,
            rollouts: 0,
            skipped: 0,
            over: false,
            has_reference: false,
            options,
            loss_type,
            policy,
            critic,
            buffer,
            reference,
            generator,
            prompts,
        };
        run.record(gpu)?;
        Ok(run)
    }

    /// The passes that do not depend on a slot.
    fn record(&mut self, gpu: &Gpu) -> Result<()> {
        let (policy, critic) = (&self.policy, self.critic.as_ref());
        policy.record_forward(&mut self.forward)?;
        policy.record_forward(&mut self.collect)?;
        policy.record_head_backward(&mut self.backward)?;
        if let Some(critic) = critic {
            critic.record_forward(&mut self.forward, policy)?;
            critic.record_forward(&mut self.collect, policy)?;
            critic.record_backward(&mut self.backward, policy)?;
        }
        policy.record_trunk_backward(&mut self.backward)?;
        policy.record_forward_of(&mut self.collect, &self.reference, &self.ref_logprobs)?;
        let trained = [
            Some(policy.parameters()),
            critic.and_then(Critic::parameters),
        ];
        for parameters in trained.into_iter().flatten() {
            let optimizer = Optimizer::new(gpu, parameters, self.options.optimizer)?;
            self.optimizers.push(optimizer);
        }
        Ok(())
    }

    /// Takes the algorithm's own plans, the last to be recorded.
    pub fn install(&mut self, recorded: Recorded) -> Result<()> {
        let own = recorded.remember.iter().chain(&recorded.loss);
        let passes = [
            &self.collect,
            &self.forward,
            &self.backward,
            &recorded.compare,
        ];
        let updates = self.optimizers.iter().map(Optimizer::plan);
        let sampling = self.generator.plans().map(|(_, plan)| plan);
        all_ready(own.chain(passes).chain(updates).chain(sampling))?;
        self.recorded = Some(recorded);
        Ok(())
    }

    pub fn gpu(&self) -> &Gpu {
        self.policy.gpu()
    }

    pub fn rollouts(&self) -> u64 {
        self.rollouts
    }

    /// Whether all rollouts were made, or the divergence passed its limit.
    pub fn is_over(&self) -> bool {
        self.over || self.rollouts >= self.options.rollouts
    }

    /// The policy as it is now becomes the reference.
    pub fn take_reference(&mut self) -> Result<()> {
        self.reference
            .copy_from(self.policy.gpu(), self.policy.parameters())?;
        self.has_reference = true;
        Ok(())
    }

    /// Samples answers to the next prompts and has them judged.
    pub fn sample(&mut self, reward: &mut dyn Reward) -> Result<Vec<Group>> {
        if !self.has_reference {
            let detail =
                "there is no reference to hold the policy to: load weights, then call start";
            return Err(Error::shape("policy run", detail));
        }
        let prompts: Vec<Vec<u32>> = (0..self.options.prompts)
            .filter_map(|_| self.order.next())
            .map(|index| self.prompts[index].clone())
            .collect();
        let completions = self.generate(&prompts)?;
        let samples: Vec<Sample<'_>> = completions
            .iter()
            .map(|completion| Sample {
                prompt: &prompts[completion.prompt],
                completion: &completion.tokens,
                finish: completion.finish,
            })
            .collect();
        let mut scores = judge(reward, &samples, self.rollouts + 1)?;
        for (score, sample) in scores.iter_mut().zip(&samples) {
            if sample.finish == Finish::Length {
                *score -= self.options.missing_eos_penalty;
            }
        }
        let per_prompt = self.options.samples;
        Ok(prompts
            .into_iter()
            .zip(
                completions
                    .chunks(per_prompt)
                    .zip(scores.chunks(per_prompt)),
            )
            .map(|(prompt, (completions, scores))| Group {
                prompt,
                answers: completions.iter().map(|c| c.tokens.clone()).collect(),
                finished: completions
                    .iter()
                    .map(|c| c.finish == Finish::Stop)
                    .collect(),
                scores: scores.to_vec(),
            })
            .collect())
    }

    fn generate(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<Completion>> {
        let seed = split_mix(self.options.seed ^ SAMPLING, self.rollouts + 1);
        let options = GenerateOptions {
            sampling: self.options.sampling(),
            max_new_tokens: self.options.max_new_tokens,
            stop_tokens: self.options.stop_tokens.clone(),
            seed,
        };
        self.generator
            .generate(prompts, self.options.samples, &options)
    }

    /// Packs the answers and fills their experience: log-probabilities of policy and reference,
    /// values, advantages.
    pub fn remember(&mut self, groups: &[Group]) -> Result<()> {
        let gpu = self.policy.gpu().clone();
        let minibatches = self.options.minibatches;
        let weight = |tokens| self.loss_type.target_weight(tokens);
        self.buffer.fill(&gpu, groups, minibatches, weight)?;
        let control = KlControl {
            kl_coef: self.kl.coef() as f32,
            ..KlControl::default()
        };
        self.kl_control.write(&gpu, &[control])?;
        let recorded = self.recorded()?;
        for (batch, remember) in self.buffer.batches().iter().zip(&recorded.remember) {
            self.policy.batch().upload(&gpu, batch)?;
            submit_together(&[&self.collect, remember]);
        }
        recorded.compare.submit();
        Ok(())
    }

    fn recorded(&self) -> Result<&Recorded> {
        self.recorded
            .as_ref()
            .ok_or_else(|| Error::shape("policy run", "it has no algorithm"))
    }

    /// Updates the policy from what it remembers, and says what came of it.
    pub fn learn(&mut self, groups: &[Group]) -> Result<PolicyStep> {
        let learning_rate = self.schedule().learning_rate(self.rollouts);
        let mut learnt = Learnt::default();
        let slots: usize = self.buffer.minibatches().iter().map(Vec::len).sum();
        for epoch in 0..self.options.epochs {
            let first_row = epoch * slots;
            self.learn_epoch(epoch, first_row, learning_rate, &mut learnt)?;
            learnt.epochs.push(first_row..first_row + slots);
            if self.went_too_far(&learnt)? {
                break;
            }
        }
        self.report(groups, &learnt, learning_rate)
    }

    fn learn_epoch(
        &mut self,
        epoch: usize,
        first_row: usize,
        learning_rate: f64,
        learnt: &mut Learnt,
    ) -> Result<()> {
        let gpu = self.policy.gpu().clone();
        let stream = self.rollouts * self.options.epochs as u64 + epoch as u64;
        let mut order: Vec<usize> = (0..self.buffer.minibatches().len()).collect();
        Random::new(self.options.seed ^ MINIBATCHES, stream).shuffle(&mut order);
        let mut row = first_row;
        for minibatch in order {
            let slots = self.buffer.minibatches()[minibatch].clone();
            let (policy_scale, value_scale) = self.scales(&slots);
            for &slot in &slots {
                let batch = &self.buffer.batches()[slot];
                let counts = Counts {
                    slot: row as u32,
                    target_scale: policy_scale,
                    pair_scale: value_scale,
                    ..batch.counts
                };
                row += 1;
                learnt.tokens += batch.tokens.len();
                self.policy.batch().upload(&gpu, batch)?;
                self.policy.batch().counts.write(&gpu, &[counts])?;
                let loss = &self.recorded()?.loss[slot];
                submit_together(&[&self.forward, loss, &self.backward]);
            }
            for optimizer in &mut self.optimizers {
                optimizer.step(learning_rate)?;
            }
            learnt.updates += 1;
            if learnt.updates == 1 {
                learnt.first = slots.len();
            }
        }
        Ok(())
    }

    /// The factors of a minibatch's policy and value losses.
    fn scales(&self, slots: &[usize]) -> (f32, f32) {
        let batches = || slots.iter().map(|&slot| &self.buffer.batches()[slot]);
        let responses = batches().map(|batch| batch.answers.len()).sum();
        let targets = || batches().flat_map(|batch| &batch.targets);
        let tokens = targets().filter(|target| target.weight != 0.0).count();
        let longest = self.options.max_new_tokens;
        let policy = self.loss_type.target_scale(responses, tokens, longest);
        (policy, 1.0 / targets().count().max(1) as f32)
    }

    /// Whether the epoch that was just learnt moved the policy further than is wanted. Reads
    /// nothing back where no limit is set.
    fn went_too_far(&self, learnt: &Learnt) -> Result<bool> {
        let (Some(limit), Some(rows)) = (self.options.epoch_kl_limit, learnt.epochs.last()) else {
            return Ok(false);
        };
        let metrics = merge(&self.rows()?[rows.clone()]);
        Ok(metrics.approx_kl_k3 / metrics.tokens.max(1.0) > limit)
    }

    fn rows(&self) -> Result<Vec<[f32; POLICY_METRICS]>> {
        let values: Vec<f32> = self.metrics.read(self.gpu())?;
        Ok(bytemuck::cast_slice(&values).to_vec())
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.options.learning_rate,
            floor: self.options.learning_rate * self.options.floor,
            warmup: self.options.warmup,
            total: self.options.rollouts,
        }
    }

    fn report(
        &mut self,
        groups: &[Group],
        learnt: &Learnt,
        learning_rate: f64,
    ) -> Result<PolicyStep> {
        let rows = self.rows()?;
        let responses = self.buffer.read_responses(self.gpu())?;
        let statistics = self.statistics()?;
        self.rollouts += 1;
        // Epochs lie behind one another, from the first row on.
        let end = learnt.epochs.last().map_or(0, |rows| rows.end);
        let total = merge(&rows[..end]);
        let skips = statistics.skipped > self.skipped;
        self.skipped = statistics.skipped;
        if total.non_finite > 0.0 || !total.loss.is_finite() {
            return Err(self.not_finite("loss"));
        }
        if skips {
            return Err(self.not_finite("gradient norm"));
        }
        let mut step = describe(groups, &responses);
        let updates = learnt.updates.max(1) as f64;
        let first_epoch = learnt.epochs.first().cloned().unwrap_or_default();
        let last_epoch = learnt.epochs.last().cloned().unwrap_or_default();
        let (start, end) = (merge(&rows[first_epoch]), merge(&rows[last_epoch]));
        let first = merge(&rows[..learnt.first]);
        step.rollout = self.rollouts;
        step.updates = learnt.updates;
        step.trained_tokens = learnt.tokens;
        step.kl_coef = self.kl.coef();
        step.entropy = start.entropy / start.tokens.max(1.0);
        step.loss = total.loss / updates;
        step.policy_loss = total.policy_loss / updates;
        step.value_loss = total.value_loss / updates;
        step.approx_kl = end.approx_kl_k3 / end.tokens.max(1.0);
        step.clip_fraction = (total.clip_low + total.clip_high) / total.tokens.max(1.0);
        step.first_ratio = [first.ratio_min, first.ratio_max];
        step.ratio = [total.ratio_min, total.ratio_max];
        step.clamped = total.held as u64;
        step.grad_norm = f64::from(statistics.grad_norm);
        step.learning_rate = learning_rate;
        self.kl.update(step.kl, step.responses);
        self.over = self.kl.is_over(step.kl);
        Ok(step)
    }

    fn statistics(&self) -> Result<UpdateStatistics> {
        let mut worst = UpdateStatistics {
            grad_norm: 0.0,
            skipped: 0,
        };
        for optimizer in &self.optimizers {
            let statistics = optimizer.statistics()?;
            worst.grad_norm = worst.grad_norm.max(statistics.grad_norm);
            worst.skipped += statistics.skipped;
        }
        Ok(worst)
    }

    fn not_finite(&self, what: &'static str) -> Error {
        Error::NonFinite {
            what,
            step: self.rollouts,
            records: Vec::new(),
        }
    }

    /// What looks wrong about a step.
    pub fn warnings(&mut self, step: &PolicyStep) -> Vec<Warning> {
        let mut warnings = self.health.check(step);
        if step.rollout == 1 && self.options.sampling().truncates() {
            warnings.push(Warning::OffPolicySampling);
        }
        for warning in &warnings {
            log::warn!("rollout {}: {warning}", step.rollout);
        }
        warnings
    }

    /// The slots, for what an algorithm records.
    pub fn slots(&self) -> &[Slot] {
        self.buffer.slots()
    }
}

fn generator_capacity(options: &RolloutOptions, longest: usize) -> GeneratorCapacity {
    let sequences = options
        .sequences
        .min(options.prompts * options.samples)
        .max(1);
    let prompts = sequences.div_ceil(options.samples).max(1);
    GeneratorCapacity {
        prompt_tokens: prompts * longest,
        prompts,
        sequences,
        new_tokens: options.max_new_tokens,
    }
}
