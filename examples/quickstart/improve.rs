//! Stage 4: the writer is improved, and measured on the way.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use example_tools::metrics::Metrics;
use example_tools::policy::{PolicyOptions, PolicyTrainer};
use prefgrad::data::{Random, TokenRecord};
use prefgrad::model::{
    Generator, GeneratorCapacity, Head, Parameters, Policy, Purpose, model_parameters,
};
use prefgrad::train::{
    DpoOptions, DpoTrainer, GrpoOptions, KlOptions, PolicyStep, PpoOptions, RewardEnsemble,
    RolloutOptions, TuningOptions,
};

use crate::judge::{Judge, Measured};
use crate::setup::{ANSWER, Setup};
use crate::stages::{choose, stop_if};
use crate::{Algorithm, Args};

/// Measurements of a run.
const MEASUREMENTS: usize = 10;
/// Rounds of DPO, the first on people's comparisons.
const DPO_ROUNDS: usize = 8;
/// Tokens that a rollout samples and trains on, roughly.
const ROLLOUT_TOKENS: usize = 10_500;
/// Packed tokens of a micro-batch.
const BATCH: usize = 2048;

/// A run of one algorithm, within a budget of tokens.
pub struct Improvement<'a> {
    /// Device, words and questions.
    pub setup: &'a Setup,
    /// The options.
    pub args: &'a Args,
    /// How.
    pub algorithm: Algorithm,
    /// The writer before.
    pub start: &'a Policy,
    /// The learned reward.
    pub reward: &'a mut RewardEnsemble,
    /// Who measures.
    pub judge: &'a mut Judge,
    /// The writer at the start and along the way.
    pub points: Vec<Measured>,
    /// Tokens sampled and trained on so far.
    pub tokens: usize,
}

impl Improvement<'_> {
    /// Runs until the budget is spent or the divergence passes its limit; the weights of the last
    /// measurement within the limit.
    pub fn run(
        &mut self,
        comparisons: &[TokenRecord],
        interrupted: &AtomicBool,
    ) -> Result<Parameters> {
        let specs = model_parameters(&self.setup.config, &[Head::Language]);
        let best = Parameters::allocate(&self.setup.gpu, specs, Purpose::Score)?;
        best.copy_from(&self.setup.gpu, self.start.parameters())?;
        println!("   tokens   proxy    gold  (+ sd)      KL  entropy  length");
        self.print(f64::NAN);
        match self.algorithm {
            Algorithm::Dpo => self.learn_from(comparisons, &best, interrupted)?,
            _ => self.learn_by_sampling(&best, interrupted)?,
        }
        Ok(best)
    }

    fn learn_by_sampling(&mut self, best: &Parameters, interrupted: &AtomicBool) -> Result<()> {
        let mut trainer = self.trainer()?;
        let parameters = trainer.policy().parameters();
        parameters.copy_common(&self.setup.gpu, self.start.parameters())?;
        trainer.start()?;
        let mut metrics = Metrics::create(&self.args.out)?;
        while self.tokens < self.args.budget {
            let (step, warnings) = trainer.step(self.reward)?;
            self.tokens += step.generated_tokens + step.trained_tokens;
            record(&mut metrics, &step)?;
            for warning in warnings {
                println!("   ! {warning}");
            }
            stop_if(interrupted)?;
            let over = trainer.is_over() || self.tokens >= self.args.budget;
            if (over || self.is_due()) && !self.measure(trainer.policy(), best, step.entropy)? {
                break;
            }
            if over {
                break;
            }
        }
        Ok(())
    }

    fn trainer(&self) -> Result<PolicyTrainer> {
        let (setup, args) = (self.setup, self.args);
        let prompts = setup.prompts(&setup.questions)?;
        // Charged in the reward, which is whitened, or in the loss.
        let kl_coef = match self.algorithm {
            Algorithm::Ppo => 0.08,
            Algorithm::Grpo | Algorithm::Rloo | Algorithm::Dpo => 0.25,
        };
        let rollout = RolloutOptions {
            seed: args.seed,
            // About what a rollout takes of the budget.
            rollouts: (args.budget / ROLLOUT_TOKENS).max(1) as u64,
            prompts: 32,
            samples: 8,
            max_new_tokens: ANSWER,
            stop_tokens: vec![setup.eos],
            epochs: 2,
            minibatches: 2,
            learning_rate: args.learning_rate,
            batch_tokens: BATCH,
            sequences: 256,
            kl: KlOptions {
                coef: args.kl_coef.unwrap_or(kl_coef),
                limit: Some(args.kl_limit),
                ..KlOptions::default()
            },
            ..RolloutOptions::default()
        };
        let options = match self.algorithm {
            Algorithm::Ppo => PolicyOptions::Ppo(PpoOptions {
                rollout,
                ..PpoOptions::default()
            }),
            Algorithm::Grpo | Algorithm::Dpo => PolicyOptions::Grpo(GrpoOptions {
                rollout,
                ..GrpoOptions::default()
            }),
            Algorithm::Rloo => PolicyOptions::Grpo(GrpoOptions {
                rollout,
                ..GrpoOptions::rloo()
            }),
        };
        let trainer = PolicyTrainer::new(&setup.gpu, &setup.config, options, prompts)?;
        Ok(trainer)
    }

    /// DPO on half of people's comparisons, then, for the other half, on comparisons of the
    /// writer's newest answers: each round starts from the last one's writer, which is also its
    /// reference (iterative DPO: Xu et al. 2023, arXiv 2312.16682, section 3).
    fn learn_from(
        &mut self,
        comparisons: &[TokenRecord],
        best: &Parameters,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let setup = self.setup;
        let now = Parameters::allocate(
            &setup.gpu,
            model_parameters(&setup.config, &[Head::Language]),
            Purpose::Score,
        )?;
        now.copy_from(&setup.gpu, self.start.parameters())?;
        let mut records = comparisons[..comparisons.len() / 2].to_vec();
        for round in 0..DPO_ROUNDS {
            // A fifth of the budget for the first choices, then once through each round's own.
            let share = match round {
                0 => self.args.budget / 5,
                _ => records.iter().map(packed_tokens).sum(),
            };
            let mut trainer = self.dpo_trainer(&records, &now, share)?;
            while !trainer.is_over() {
                if let Some(reading) = trainer.step()? {
                    self.tokens += reading.steps.iter().map(|step| step.tokens).sum::<usize>();
                }
                stop_if(interrupted)?;
                if self.is_due() && !self.measure(trainer.policy(), best, f64::NAN)? {
                    return Ok(());
                }
            }
            now.copy_from(&setup.gpu, trainer.policy().parameters())?;
            let within = self.measure(trainer.policy(), best, f64::NAN)?;
            if !within || self.tokens >= self.args.budget {
                break;
            }
            records = self.compare_newest(&now, round)?;
        }
        Ok(())
    }

    fn dpo_trainer(
        &self,
        records: &[TokenRecord],
        now: &Parameters,
        tokens: usize,
    ) -> Result<DpoTrainer> {
        let (setup, args) = (self.setup, self.args);
        let options = DpoOptions {
            tuning: TuningOptions {
                seed: args.seed,
                steps: tokens.div_ceil(BATCH) as u64,
                batch_tokens: BATCH,
                learning_rate: args.dpo_learning_rate,
                evaluate_every: 0,
                read_every: 5,
                optimizer: RolloutOptions::default().optimizer,
                ..TuningOptions::default()
            },
            beta: args.beta,
            ..DpoOptions::default()
        };
        let mut trainer = DpoTrainer::new(&setup.gpu, &setup.config, options, records, &[])?;
        trainer.policy().parameters().copy_from(&setup.gpu, now)?;
        trainer.prepare()?;
        Ok(trainer)
    }

    /// People compare pairs of the writer's newest answers.
    fn compare_newest(&mut self, now: &Parameters, round: usize) -> Result<Vec<TokenRecord>> {
        let setup = self.setup;
        let prompts = setup.prompts(&setup.questions)?;
        let capacity = GeneratorCapacity {
            prompt_tokens: prompts.iter().map(Vec::len).sum(),
            prompts: prompts.len(),
            sequences: 256,
            new_tokens: ANSWER,
        };
        let mut generator = Generator::new(&setup.gpu, &setup.config, now, capacity)?;
        let seed = self.args.seed.wrapping_add(((round + 1) as u64) << 48);
        let share = self.args.comparisons / 2 / (DPO_ROUNDS - 1);
        let pairs = share.div_ceil(prompts.len());
        let answers = generator.generate(&prompts, 2 * pairs, &setup.sampling(seed))?;
        self.tokens += answers.iter().map(|a| a.tokens.len()).sum::<usize>();
        let mut random = Random::new(seed, 0);
        let mut records = Vec::new();
        for pair in answers.chunks_exact(2) {
            records.extend(choose(setup, &prompts, pair, &mut random)?.map(|(record, _)| record));
        }
        for (index, record) in records.iter_mut().enumerate() {
            record.line = index + 1;
        }
        Ok(records)
    }

    fn is_due(&self) -> bool {
        self.tokens >= self.points.len() * self.args.budget / MEASUREMENTS
    }

    /// Measures the policy; `false` where it is too far from the start, otherwise its weights are
    /// kept.
    fn measure(&mut self, policy: &Policy, best: &Parameters, entropy: f64) -> Result<bool> {
        let (setup, start) = (self.setup, self.start);
        let weights = policy.parameters();
        let measured = self.judge.measure(setup, start, weights, self.reward)?;
        let within = measured.kl <= self.args.kl_limit;
        if within {
            best.copy_from(&setup.gpu, self.judge.weights())?;
        }
        self.points.push(measured);
        self.print(entropy);
        Ok(within)
    }

    fn print(&self, entropy: f64) {
        let (Some(first), Some(now)) = (self.points.first(), self.points.last()) else {
            return;
        };
        let gain = now.gold_rise(first);
        let entropy = match entropy.is_nan() {
            true => "      -".into(),
            false => format!("{entropy:>7.2}"),
        };
        println!(
            "  {:>7} {:>7.2} {:>7.2} {:>7.2} {:>7.1}  {entropy} {:>7.1}",
            self.tokens, now.proxy, now.gold, gain, now.kl, now.length
        );
    }
}

/// Tokens that a comparison takes in a batch.
fn packed_tokens(record: &TokenRecord) -> usize {
    record.prompt.len() + record.answers.iter().map(Vec::len).sum::<usize>()
}

fn record(metrics: &mut Metrics, step: &PolicyStep) -> Result<()> {
    let values = [
        ("policy/reward", step.reward_mean),
        ("policy/kl", step.kl),
        ("policy/entropy", step.entropy),
        ("policy/length", step.length),
        ("policy/finished", step.finished),
        ("policy/loss", step.loss),
        ("policy/value_loss", step.value_loss),
        ("policy/approx_kl", step.approx_kl),
        ("policy/clip_fraction", step.clip_fraction),
        ("policy/learning_rate", step.learning_rate),
        ("policy/grad_norm", step.grad_norm),
    ];
    Ok(metrics.record(step.rollout, &values)?)
}
