//! What the tests of policy trainers share: a small model, and a reward that remembers.

use prefgrad::Result;
use prefgrad::data::Random;
use prefgrad::model::{Chunk, Finish, Gpt2Config, ModelConfig, Parameters, Policy, Purpose};
use prefgrad::train::{
    AdamW, GrpoOptions, GrpoTrainer, KlOptions, PolicyStep, PpoOptions, PpoTrainer, Reward,
    RolloutBuffer, RolloutOptions, Sample, ValueModel, Warning,
};

use crate::tools::gpu;

/// The token that ends an answer.
pub const STOP: u32 = 1;
/// Seeds the weights of every reference.
const REFERENCE: u64 = 3;
/// The token that [`share`] pays for.
pub const GOOD: u32 = 7;

pub fn config(tie_word_embeddings: bool) -> ModelConfig {
    Gpt2Config {
        vocab_size: 21,
        n_positions: 24,
        n_embd: 16,
        n_layer: 1,
        n_head: 2,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: Some(STOP),
        pad_token_id: None,
        tie_word_embeddings,
    }
    .into()
}

/// Weights large enough that what is said depends on what stands before it.
pub fn spread(parameters: &Parameters, seed: u64) {
    let mut random = Random::new(seed, 0);
    for spec in parameters.specs() {
        let norm = spec.name.contains("ln_") && spec.name.ends_with("weight");
        let (mean, deviation) = match (norm, spec.decay) {
            (true, _) => (1.0, 0.2),
            (false, true) => (0.0, 0.35),
            (false, false) => (0.0, 0.2),
        };
        let values: Vec<f32> = (0..spec.shape.iter().product::<usize>())
            .map(|_| mean + deviation * random.normal())
            .collect();
        parameters.write(gpu(), &spec.name, &values).unwrap();
    }
}

/// Moves every weight a little.
pub fn nudge(parameters: &Parameters, seed: u64) {
    let mut random = Random::new(seed, 1);
    for (spec, mut values) in parameters.read_weights(gpu()).unwrap() {
        for value in &mut values {
            *value += 0.05 * random.normal();
        }
        parameters.write(gpu(), &spec.name, &values).unwrap();
    }
}

/// Prompts of one to five tokens.
pub fn prompts() -> Vec<Vec<u32>> {
    (0..5u32)
        .map(|i| (0..=i).map(|k| 2 + (5 * i + 3 * k) % 19).collect())
        .collect()
}

/// A few short answers, and an optimiser whose first moment is the gradient of the last update.
pub fn rollout() -> RolloutOptions {
    RolloutOptions {
        seed: 5,
        rollouts: 100,
        prompts: 5,
        samples: 3,
        max_new_tokens: 6,
        stop_tokens: vec![STOP, 2],
        epochs: 1,
        minibatches: 1,
        learning_rate: 3e-3,
        floor: 1.0,
        optimizer: AdamW {
            beta1: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1e30,
            ..AdamW::default()
        },
        kl: KlOptions {
            coef: 0.1,
            ..KlOptions::default()
        },
        batch_tokens: 48,
        ..RolloutOptions::default()
    }
}

/// PPO or GRPO.
pub trait Trainer {
    fn step(&mut self, reward: &mut dyn Reward) -> Result<(PolicyStep, Vec<Warning>)>;
    fn start(&mut self) -> Result<()>;
    fn policy(&self) -> &Policy;
    fn value_parameters(&self) -> Option<&Parameters>;
    fn buffer(&self) -> &RolloutBuffer;
    fn is_over(&self) -> bool;
}

macro_rules! trainer {
    ($kind:ty, $value:ident) => {
        impl Trainer for $kind {
            fn step(&mut self, reward: &mut dyn Reward) -> Result<(PolicyStep, Vec<Warning>)> {
                <$kind>::step(self, reward)
            }
            fn start(&mut self) -> Result<()> {
                <$kind>::start(self)
            }
            fn policy(&self) -> &Policy {
                <$kind>::policy(self)
            }
            fn value_parameters(&self) -> Option<&Parameters> {
                $value(self)
            }
            fn buffer(&self) -> &RolloutBuffer {
                <$kind>::buffer(self)
            }
            fn is_over(&self) -> bool {
                <$kind>::is_over(self)
            }
        }
    };
}

fn of_critic(trainer: &PpoTrainer) -> Option<&Parameters> {
    trainer.critic()?.parameters()
}

fn no_critic(_: &GrpoTrainer) -> Option<&Parameters> {
    None
}

trainer!(PpoTrainer, of_critic);
trainer!(GrpoTrainer, no_critic);

/// An algorithm by its name, with options of its own where they differ from the defaults.
pub fn trainer(name: &str, rollout: RolloutOptions) -> Box<dyn Trainer> {
    match name {
        "ppo" => Box::new(ppo(PpoOptions {
            rollout,
            vf_coef: 0.5,
            ..PpoOptions::default()
        })),
        "ppo network" => Box::new(ppo(PpoOptions {
            rollout,
            vf_coef: 0.5,
            value: ValueModel::Network,
            ..PpoOptions::default()
        })),
        "grpo" => Box::new(grpo(GrpoOptions {
            rollout,
            ..GrpoOptions::default()
        })),
        "rloo" => Box::new(grpo(GrpoOptions {
            rollout,
            ..GrpoOptions::rloo()
        })),
        _ => panic!("no algorithm {name}"),
    }
}

pub const ALGORITHMS: [&str; 4] = ["ppo", "ppo network", "grpo", "rloo"];

/// A trainer that has started from random weights, and is a little way from its reference.
pub fn ppo(options: PpoOptions) -> PpoTrainer {
    let mut trainer = PpoTrainer::new(gpu(), &config(true), options, prompts()).unwrap();
    begin(&mut trainer);
    trainer
}

/// See [`ppo`].
pub fn grpo(options: GrpoOptions) -> GrpoTrainer {
    let mut trainer = GrpoTrainer::new(gpu(), &config(true), options, prompts()).unwrap();
    begin(&mut trainer);
    trainer
}

fn begin(trainer: &mut dyn Trainer) {
    spread(trainer.policy().parameters(), REFERENCE);
    if let Some(parameters) = trainer.value_parameters() {
        spread(parameters, 4);
    }
    trainer.start().unwrap();
    nudge(trainer.policy().parameters(), 6);
}

/// An answer that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub prompt: Vec<u32>,
    pub answer: Vec<u32>,
    pub finish: Finish,
    pub reward: f32,
}

/// Judges by a rule and remembers what it saw last.
pub struct Recorder {
    pub rule: fn(&Sample<'_>) -> f32,
    pub seen: Vec<Judged>,
}

impl Recorder {
    pub fn new(rule: fn(&Sample<'_>) -> f32) -> Self {
        Self {
            rule,
            seen: Vec::new(),
        }
    }
}

impl Reward for Recorder {
    fn rewards(&mut self, samples: &[Sample<'_>]) -> Result<Vec<f32>> {
        let judged = |sample: &Sample<'_>| Judged {
            prompt: sample.prompt.to_vec(),
            answer: sample.completion.to_vec(),
            finish: sample.finish,
            reward: (self.rule)(sample),
        };
        self.seen = samples.iter().map(judged).collect();
        Ok(self.seen.iter().map(|judged| judged.reward).collect())
    }
}

/// The share of [`GOOD`] in an answer.
pub fn share(sample: &Sample<'_>) -> f32 {
    let good = sample.completion.iter().filter(|&&token| token == GOOD);
    good.count() as f32 / sample.completion.len() as f32
}

/// A reward that no two answers share.
pub fn hash(sample: &Sample<'_>) -> f32 {
    let sum = (1..)
        .zip(sample.completion)
        .fold(0, |sum, (place, token)| (sum * 31 + place * token) % 1000);
    sum as f32 / 500.0 - 1.0
}

/// The bits of all weights.
pub fn bits(parameters: &Parameters) -> Vec<u32> {
    let weights = parameters.read(gpu(), |chunk| &chunk.weights).unwrap();
    weights.into_iter().flatten().map(f32::to_bits).collect()
}

/// A tensor of every chunk by the parameters' names, in float64.
pub fn named(
    parameters: &Parameters,
    of: fn(&Chunk) -> &prefgrad::Tensor,
) -> prefgrad::reference::transformer::Parameters {
    let buffers = parameters.read(gpu(), of).unwrap();
    parameters
        .split(&buffers)
        .into_iter()
        .map(|(spec, values)| {
            let wide = values.iter().map(|&x| f64::from(x)).collect();
            (spec.name.clone(), wide)
        })
        .collect()
}

/// The weights that the reference of a trainer's policy has.
pub fn reference_weights(policy: &Policy) -> prefgrad::reference::transformer::Parameters {
    let specs = policy.parameters().specs().to_vec();
    let parameters = Parameters::allocate(gpu(), specs, Purpose::Score).unwrap();
    spread(&parameters, REFERENCE);
    named(&parameters, |chunk| &chunk.weights)
}
