//! Stage 4: the writer is improved, and measured on the way.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use example_tools::metrics::Metrics;
use prefgrad::data::TokenRecord;
use prefgrad::model::{Head, Parameters, Policy, Purpose, gpt2_parameters};
use prefgrad::train::{
    DpoOptions, DpoTrainer, GrpoOptions, GrpoTrainer, KlOptions, PolicyStep, PpoOptions,
    PpoTrainer, Reward, RewardEnsemble, RolloutOptions, TuningOptions, Warning,
};

use crate::judge::{Judge, Measured};
use crate::setup::{ANSWER, Setup};
use crate::stages::stop_if;
use crate::{Algorithm, Args};

/// Measurements of a run.
const MEASUREMENTS: usize = 10;
/// Packed tokens of a micro-batch.
const BATCH: usize = 2048;

/// A run of one algorithm, within a budget of tokens.
pub struct Improvement<'a> {
    /// Device, words and questions.
    pub setup: &'a Setup,
    /// The options.
    pub args: &'a Args,
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

/// PPO or GRPO.
enum Sampling {
    Ppo(Box<PpoTrainer>),
    Grpo(Box<GrpoTrainer>),
}

impl Sampling {
    fn policy(&self) -> &Policy {
        match self {
            Self::Ppo(trainer) => trainer.policy(),
            Self::Grpo(trainer) => trainer.policy(),
        }
    }

    fn start(&mut self) -> prefgrad::Result<()> {
        match self {
            Self::Ppo(trainer) => trainer.start(),
            Self::Grpo(trainer) => trainer.start(),
        }
    }

    fn step(&mut self, reward: &mut dyn Reward) -> prefgrad::Result<(PolicyStep, Vec<Warning>)> {
        match self {
            Self::Ppo(trainer) => trainer.step(reward),
            Self::Grpo(trainer) => trainer.step(reward),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Ppo(trainer) => trainer.is_over(),
            Self::Grpo(trainer) => trainer.is_over(),
        }
    }
}

impl Improvement<'_> {
    /// Runs until the budget is spent or the divergence passes its limit; the weights of the last
    /// measurement within the limit.
    pub fn run(
        &mut self,
        comparisons: &[TokenRecord],
        interrupted: &AtomicBool,
    ) -> Result<Parameters> {
        let specs = gpt2_parameters(&self.setup.config, &[Head::Language]);
        let best = Parameters::allocate(&self.setup.gpu, specs, Purpose::Score)?;
        best.copy_from(&self.setup.gpu, self.start.parameters())?;
        println!("   tokens   proxy    gold  (+ sd)      KL  entropy  length");
        self.print(f64::NAN);
        match self.args.algorithm {
            Algorithm::Dpo => self.learn_from(comparisons, &best, interrupted)?,
            _ => self.learn_by_sampling(&best, interrupted)?,
        }
        Ok(best)
    }

    fn learn_by_sampling(&mut self, best: &Parameters, interrupted: &AtomicBool) -> Result<()> {
        let mut trainer = self.sampling()?;
        let gpu = &self.setup.gpu;
        for (spec, values) in self.start.parameters().read_weights(gpu)? {
            let parameters = trainer.policy().parameters();
            parameters.write(gpu, &spec.name, &values)?;
        }
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

    fn sampling(&self) -> Result<Sampling> {
        let (setup, args) = (self.setup, self.args);
        let prompts = setup.prompts(&setup.questions)?;
        let rollout = RolloutOptions {
            seed: args.seed,
            rollouts: 60,
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
                coef: args.kl_coef,
                limit: Some(args.kl_limit),
                ..KlOptions::default()
            },
            ..RolloutOptions::default()
        };
        let (gpu, config) = (&setup.gpu, &setup.config);
        Ok(match args.algorithm {
            Algorithm::Ppo => {
                let options = PpoOptions {
                    rollout,
                    ..PpoOptions::default()
                };
                Sampling::Ppo(Box::new(PpoTrainer::new(gpu, config, options, prompts)?))
            }
            Algorithm::Grpo | Algorithm::Rloo | Algorithm::Dpo => {
                let algorithm = match args.algorithm {
                    Algorithm::Rloo => GrpoOptions::rloo(),
                    _ => GrpoOptions::default(),
                };
                let options = GrpoOptions {
                    rollout,
                    ..algorithm
                };
                Sampling::Grpo(Box::new(GrpoTrainer::new(gpu, config, options, prompts)?))
            }
        })
    }

    fn learn_from(
        &mut self,
        comparisons: &[TokenRecord],
        best: &Parameters,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let (setup, args) = (self.setup, self.args);
        let options = DpoOptions {
            tuning: TuningOptions {
                seed: args.seed,
                steps: (args.budget / BATCH) as u64,
                batch_tokens: BATCH,
                learning_rate: args.learning_rate,
                evaluate_every: 0,
                read_every: 5,
                optimizer: RolloutOptions::default().optimizer,
                ..TuningOptions::default()
            },
            beta: args.kl_coef as f32,
            ..DpoOptions::default()
        };
        let (gpu, config) = (&setup.gpu, &setup.config);
        let mut trainer = DpoTrainer::new(gpu, config, options, comparisons, &[])?;
        let parameters = trainer.policy().parameters();
        for (spec, values) in self.start.parameters().read_weights(gpu)? {
            parameters.write(gpu, &spec.name, &values)?;
        }
        trainer.prepare()?;
        while !trainer.is_over() {
            if let Some(reading) = trainer.step()? {
                self.tokens += reading.steps.iter().map(|step| step.tokens).sum::<usize>();
            }
            stop_if(interrupted)?;
            let due = self.is_due() || trainer.is_over();
            if due && !self.measure(trainer.policy(), best, f64::NAN)? {
                break;
            }
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.tokens >= self.points.len() * self.args.budget / MEASUREMENTS
    }

    /// Measures the policy; `false` where it is too far from the start, otherwise its weights are
    /// kept.
    fn measure(&mut self, policy: &Policy, best: &Parameters, entropy: f64) -> Result<bool> {
        let (setup, start) = (self.setup, self.start);
        let parameters = policy.parameters();
        let mut now = Parameters::allocate(
            &setup.gpu,
            gpt2_parameters(&setup.config, &[Head::Language]),
            Purpose::Score,
        )?;
        copy_language_model(setup, &mut now, parameters)?;
        let measured = self.judge.measure(setup, start, &now, self.reward)?;
        let within = measured.kl <= self.args.kl_limit;
        if within {
            best.copy_from(&setup.gpu, &now)?;
        }
        self.points.push(measured);
        self.print(entropy);
        Ok(within)
    }

    fn print(&self, entropy: f64) {
        let (Some(first), Some(now)) = (self.points.first(), self.points.last()) else {
            return;
        };
        let gain = (now.gold - first.gold) / first.gold_deviation;
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

/// The weights that two models share: all but a value head.
fn copy_language_model(setup: &Setup, to: &mut Parameters, from: &Parameters) -> Result<()> {
    let gpu = &setup.gpu;
    let names: Vec<String> = to.specs().iter().map(|spec| spec.name.clone()).collect();
    for (spec, values) in from.read_weights(gpu)? {
        if names.contains(&spec.name) {
            to.write(gpu, &spec.name, &values)?;
        }
    }
    Ok(())
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
