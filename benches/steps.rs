//! Whole training steps: time, CPU time and peak memory, `cargo bench --bench steps`.
//!
//! Each step runs in a process of its own, so that peak memory is its own. The first update, from
//! the start of the process on and with the kernels' compilation, stands apart; the others count
//! with their median. On a software driver
//! the device's memory is part of the process's. `cargo bench --bench steps -- smollm2` runs the
//! steps with that in their name, and with `--profile` shows which kernels a reward step's time
//! goes to.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use example_tools::measure;
use example_tools::table::table_of;
use prefgrad::data::{Batch, PackOptions, Preference, Random, TokenRecord, pack_all};
use prefgrad::kernels::preference::pairwise_loss::PairwiseLossOptions;
use prefgrad::model::{Family, Gpt2Config, ModelConfig, RewardModel, Rope, RopeScaling};
use prefgrad::train::{
    AdamW, DpoOptions, DpoTrainer, Optimizer, PpoOptions, PpoTrainer, RolloutOptions, Sample,
    TuningOptions, capacity_for,
};
use prefgrad::{Gpu, MemoryPlan, Profile};

/// Updates whose median counts: at least so many, unless they take longer than `ENOUGH`, and for so
/// long that a GPU has raised its clock.
const UPDATES: usize = 5;
const AT_LEAST: Duration = Duration::from_secs(1);
const ENOUGH: Duration = Duration::from_secs(60);
const ONLY: &str = "PREFGRAD_STEP";
const PROFILE: &str = "PREFGRAD_PROFILE";

/// Something that makes one update after another.
trait Updates {
    fn update(&mut self) -> Result<()>;

    /// Where the time of an update goes, by plan.
    fn profiles(&self) -> Result<Vec<(&'static str, Profile)>> {
        Ok(vec![])
    }
}

struct RewardUpdates {
    model: RewardModel,
    optimizer: Optimizer,
    batch: Batch,
}

impl Updates for RewardUpdates {
    fn update(&mut self) -> Result<()> {
        self.model.accumulate(&self.batch)?;
        self.optimizer.step(1e-5)?;
        Ok(self.model.gpu().wait()?)
    }

    fn profiles(&self) -> Result<Vec<(&'static str, Profile)>> {
        let plans = self.model.plans();
        let learn = plans.into_iter().filter(|(name, _)| *name != "score");
        let all = learn.chain([("optimizer", self.optimizer.plan())]);
        all.map(|(name, plan)| Ok((name, plan.profile()?)))
            .collect()
    }
}

impl Updates for PpoTrainer {
    fn update(&mut self) -> Result<()> {
        let mut length = |samples: &[Sample<'_>]| {
            let lengths = samples.iter().map(|sample| sample.completion.len() as f32);
            Ok(lengths.collect())
        };
        self.step(&mut length)?;
        Ok(())
    }
}

impl Updates for DpoTrainer {
    fn update(&mut self) -> Result<()> {
        self.step()?.context("no metrics of an update")?;
        Ok(())
    }
}

/// A step to measure: `pairs` of two texts of `tokens` tokens, the first half of them shared.
struct Step {
    name: &'static str,
    config: fn() -> ModelConfig,
    pairs: usize,
    tokens: usize,
    loss: Loss,
    /// Whether a prompt is stored once, and not once for each answer.
    shared: bool,
}

#[derive(Clone, Copy)]
enum Loss {
    Reward,
    Dpo,
    /// A whole rollout: two answers to each prompt are sampled, judged and learnt from once.
    Ppo,
}

const STEPS: [Step; 13] = [
    step(
        "gpt2-small-4x256 reward",
        four_layers,
        8,
        Loss::Reward,
        true,
    ),
    step(
        "gpt2-small-4x256 reward, prompts apart",
        four_layers,
        8,
        Loss::Reward,
        false,
    ),
    step("gpt2-small-4x256 ppo", four_layers, 8, Loss::Ppo, true),
    step("gpt2-124m reward", gpt2, 2, Loss::Reward, true),
    step(
        "gpt2-124m reward, prompts apart",
        gpt2,
        2,
        Loss::Reward,
        false,
    ),
    step("smollm2-135m reward", smollm2, 1, Loss::Reward, true),
    step(
        "smollm2-135m reward, prompts apart",
        smollm2,
        1,
        Loss::Reward,
        false,
    ),
    step("smollm2-135m dpo", smollm2, 1, Loss::Dpo, true),
    // Time a token over the size of a batch; memory over the length of a text.
    step("batch of 2 pairs", four_layers, 2, Loss::Reward, false),
    step("batch of 16 pairs", four_layers, 16, Loss::Reward, false),
    Step {
        tokens: 256,
        ..LONG_TEXTS
    },
    Step {
        name: "texts of 1024 tokens",
        tokens: 1024,
        ..LONG_TEXTS
    },
    Step {
        name: "texts of 4096 tokens",
        tokens: 4096,
        ..LONG_TEXTS
    },
];

const LONG_TEXTS: Step = step("texts of 256 tokens", one_layer, 1, Loss::Reward, false);

const fn step(
    name: &'static str,
    config: fn() -> ModelConfig,
    pairs: usize,
    loss: Loss,
    shared: bool,
) -> Step {
    Step {
        name,
        config,
        pairs,
        tokens: 128,
        loss,
        shared,
    }
}

fn gpt2_of(n_layer: usize, n_embd: usize, n_head: usize, vocab_size: usize) -> ModelConfig {
    Gpt2Config {
        vocab_size,
        n_positions: 1024,
        n_embd,
        n_layer,
        n_head,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into()
}

fn four_layers() -> ModelConfig {
    gpt2_of(4, 256, 4, 8192)
}

fn one_layer() -> ModelConfig {
    ModelConfig {
        max_position_embeddings: 4096,
        ..gpt2_of(1, 256, 4, 8192)
    }
}

fn gpt2() -> ModelConfig {
    gpt2_of(12, 768, 12, 50257)
}

fn smollm2() -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        max_position_embeddings: 8192,
        num_key_value_heads: 3,
        intermediate_size: 1536,
        rope: Some(Rope {
            theta: 100_000.0,
            scaling: RopeScaling::None,
        }),
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        ..gpt2_of(30, 576, 9, 49152)
    }
}

impl Step {
    fn records(&self, vocabulary: usize) -> Vec<TokenRecord> {
        let mut random = Random::new(0, 0);
        let half = self.tokens / 2;
        let mut text = |len| -> Vec<u32> {
            (0..len)
                .map(|_| 3 + random.below(vocabulary - 3) as u32)
                .collect()
        };
        let record = |line| {
            let prompt = text(half);
            let mut answers = vec![text(self.tokens - half), text(self.tokens - half)];
            let stored = match self.shared {
                true => prompt,
                false => {
                    answers = answers
                        .iter()
                        .map(|answer| [&prompt[..], answer].concat())
                        .collect();
                    vec![]
                }
            };
            TokenRecord {
                line,
                prompt: stored,
                answers,
                preferences: vec![Preference {
                    chosen: 0,
                    rejected: 1,
                    weight: 1.0,
                    margin: 0.0,
                }],
            }
        };
        (1..=self.pairs).map(record).collect()
    }

    /// Rows of the packed batch.
    fn rows(&self) -> usize {
        let texts = 2 * self.pairs * self.tokens;
        match self.shared {
            true => texts - self.pairs * (self.tokens / 2),
            false => texts,
        }
    }

    /// Something that makes one update whenever it is called; not `ready` where memory is only
    /// being planned and nothing can be computed.
    fn trainer(&self, gpu: &Gpu, ready: bool) -> Result<Box<dyn Updates>> {
        let config = (self.config)();
        let records = self.records(config.vocab_size);
        match self.loss {
            Loss::Reward => {
                let capacity = capacity_for(self.rows(), false);
                let loss = PairwiseLossOptions::default();
                let model = RewardModel::to_train(gpu, &config, capacity, &loss)?;
                model.parameters().initialise(gpu, 0)?;
                let mut batches = pack_all(&records, capacity, PackOptions::default())?;
                ensure!(batches.len() == 1, "{} batches", batches.len());
                let mut batch = batches.remove(0);
                batch.counts.pair_scale = 1.0 / self.pairs as f32;
                let options = AdamW::default();
                let optimizer = Optimizer::new(gpu, model.parameters(), options)?;
                Ok(Box::new(RewardUpdates {
                    model,
                    optimizer,
                    batch,
                }))
            }
            Loss::Dpo => {
                let options = DpoOptions {
                    tuning: TuningOptions {
                        batch_tokens: self.rows(),
                        steps: 1000,
                        learning_rate: 1e-5,
                        evaluate_every: 0,
                        read_every: 1,
                        ..TuningOptions::default()
                    },
                    ..DpoOptions::default()
                };
                let mut trainer = DpoTrainer::new(gpu, &config, options, &records, &records)?;
                if ready {
                    trainer.prepare()?;
                }
                Ok(Box::new(trainer))
            }
            Loss::Ppo => self.ppo(gpu, &config, ready),
        }
    }

    fn ppo(&self, gpu: &Gpu, config: &ModelConfig, ready: bool) -> Result<Box<dyn Updates>> {
        let half = self.tokens / 2;
        let options = PpoOptions {
            rollout: RolloutOptions {
                rollouts: 1000,
                prompts: self.pairs,
                samples: 2,
                max_new_tokens: half,
                epochs: 1,
                minibatches: 1,
                batch_tokens: self.rows(),
                sequences: 2 * self.pairs,
                ..RolloutOptions::default()
            },
            ..PpoOptions::default()
        };
        let records = self.records(config.vocab_size);
        let prompts = records.into_iter().map(|record| record.prompt).collect();
        let mut trainer = PpoTrainer::new(gpu, config, options, prompts)?;
        if ready {
            trainer.policy().parameters().initialise(gpu, 0)?;
            trainer.start()?;
        }
        Ok(Box::new(trainer))
    }

    /// Prints the figures as a line of fields, for the process that gathers them.
    fn measure(&self) -> Result<()> {
        let begun = Instant::now();
        let gpu = Gpu::new()?;
        let plan = MemoryPlan::of(&gpu, |gpu| self.trainer(gpu, false).map(drop))?;
        let mut trainer = self.trainer(&gpu, true)?;
        trainer.update()?;
        let (first, first_cpu) = (begun.elapsed(), cpu_time());
        let mut walls = Vec::new();
        let mut cpus = Vec::new();
        let started = Instant::now();
        let more = |updates| match started.elapsed() {
            spent if spent < AT_LEAST => true,
            spent => updates < UPDATES && (updates == 0 || spent < ENOUGH),
        };
        while more(walls.len()) {
            let (begun, used) = (Instant::now(), cpu_time());
            trainer.update()?;
            walls.push(begun.elapsed());
            cpus.push(cpu_time() - used);
        }
        if std::env::var_os(PROFILE).is_some() {
            for (name, profile) in trainer.profiles()? {
                println!("{name}\n{profile}\n");
            }
        }
        let planned = plan.total() >> 20;
        println!(
            "{:.1}|{:.1}|{:.1}|{:.1}|{}|{}|{}",
            first.as_secs_f64(),
            first_cpu.as_secs_f64(),
            median(walls),
            median(cpus),
            peak_memory_mib(),
            planned,
            gpu.activity().pipelines
        );
        Ok(())
    }
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// CPU time of this process, zero where the system does not say.
fn cpu_time() -> Duration {
    measure::cpu_time().unwrap_or_default()
}

/// The most memory that this process has held, zero where the system does not say.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

fn gather(step: &Step, profile: bool) -> Result<Vec<String>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ONLY, step.name);
    if profile {
        command.env(PROFILE, "1");
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some((profiles, _)) = text.trim_end().rsplit_once("\n\n") {
        println!("{}\n\n{profiles}\n", step.name);
    }
    ensure!(
        output.status.success(),
        "{}: {}",
        step.name,
        String::from_utf8_lossy(&output.stderr)
    );
    let line = text.lines().last().context("no figures")?;
    Ok(line.split('|').map(str::to_owned).collect())
}

fn run() -> Result<()> {
    if let Ok(name) = std::env::var(ONLY) {
        let step = STEPS.iter().find(|step| step.name == name);
        return step.context("no such step")?.measure();
    }
    let arguments = || std::env::args().skip(1);
    let profile = arguments().any(|argument| argument == "--profile");
    let wanted: Vec<String> = arguments()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let gpu = Gpu::new()?;
    println!("{} ({:?})", gpu.variants(), gpu.info().device_type);
    drop(gpu);
    let mut table = table_of(
        [
            "step",
            "rows",
            "first s",
            "first CPU s",
            "wall ms",
            "CPU ms",
            "peak MiB",
            "planned MiB",
            "pipelines",
        ],
        1,
    );
    for step in &STEPS {
        if wanted.is_empty() || wanted.iter().any(|part| step.name.contains(part)) {
            let mut row = vec![step.name.to_owned(), step.rows().to_string()];
            row.extend(gather(step, profile)?);
            table.add_row(row);
        }
    }
    println!("{table}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
