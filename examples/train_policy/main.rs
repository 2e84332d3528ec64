//! Trains a language model on people's preferences: `--help` says how.

mod args;
mod recorded;
mod sampled;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use clap::Parser;
use example_tools::files::output_folder;
use example_tools::model_folder::{LoadedTokenizer, config_of, new_gpt2};
use example_tools::policy::Limits;
use example_tools::rewards::RewardJudge;
use example_tools::samples::{Judged, Sampler, show_samples, write_samples};
use example_tools::training::interrupt_flag_saying;
use prefgrad::Gpu;
use prefgrad::data::{Skipped, Tokenizer};
use prefgrad::model::{GenerateOptions, ModelConfig, Policy, SamplingOptions};
use prefgrad::train::Reward;

use args::Args;

/// What all algorithms work with.
struct Session {
    args: Args,
    gpu: Gpu,
    tokenizer: LoadedTokenizer,
    config: ModelConfig,
    /// What ends an answer.
    stop_tokens: Vec<u32>,
    /// Longest prompt and answer together.
    context: usize,
    interrupted: Arc<AtomicBool>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.check()?;
    output_folder(&args.out)?;
    let session = Session::open(args)?;
    match session.args.algorithm.samples() {
        true => sampled::run(&session),
        false => recorded::run(&session),
    }
}

impl Session {
    fn open(args: Args) -> Result<Self> {
        let tokenizer = match (&args.tokenizer, &args.policy) {
            (Some(path), _) => LoadedTokenizer::load(Some(path))?,
            (None, Some(folder)) => LoadedTokenizer::of_model(folder)?,
            (None, None) => LoadedTokenizer::load(None)?,
        };
        let config = match &args.policy {
            Some(folder) => config_of(folder, &*tokenizer)?,
            None => new_config(&args, &*tokenizer)?,
        };
        let context = args.context.unwrap_or(config.max_position_embeddings);
        if context > config.max_position_embeddings {
            bail!(
                "--context is {context}, the model's is {}: it knows no positions beyond",
                config.max_position_embeddings
            );
        }
        let gpu = Gpu::new()?;
        let info = gpu.info();
        println!("device     {} ({})", info.name, info.driver_info);
        let stop_tokens = tokenizer.stop_tokens(config.vocab_size)?;
        if stop_tokens.is_empty() {
            eprintln!(
                "the tokenizer has no end-of-text token: every answer runs to the limit of {} tokens",
                args.max_new_tokens
            );
        }
        let message = "stopping after this step, and saving (again to stop at once)";
        Ok(Self {
            interrupted: interrupt_flag_saying(message)?,
            args,
            gpu,
            tokenizer,
            config,
            stop_tokens,
            context,
        })
    }

    fn limits(&self) -> Limits<'_> {
        Limits {
            interrupted: &self.interrupted,
            time: self.args.time_limit(),
        }
    }

    /// The most tokens of a prompt.
    fn longest_prompt(&self) -> Result<usize> {
        let (context, answer) = (self.context, self.args.max_new_tokens);
        if answer == 0 || answer >= context {
            bail!(
                "--max-new-tokens is {answer}: it must be 1 at least and leave room for a prompt \
                 in the context of {context}"
            );
        }
        Ok(context - answer)
    }

    fn load_judge(&self, gpu: &Gpu) -> Result<Option<RewardJudge>> {
        let args = &self.args;
        if args.reward.is_empty() {
            return Ok(None);
        }
        let tokenizer = self.tokenizer.clone();
        let (folders, tokens) = (&args.reward, args.batch_tokens);
        let judge = RewardJudge::load(gpu, folders, args.pessimism, tokenizer, tokens)?;
        Ok(Some(judge))
    }

    /// The judge of answers, where reward models are given.
    fn judge(&self) -> Result<Option<RewardJudge>> {
        let Some(judge) = self.load_judge(&self.gpu)? else {
            return Ok(None);
        };
        for folder in &self.args.reward {
            println!("reward     {}", folder.display());
        }
        if judge.retokenises() {
            println!(
                "           its tokenizer is not the policy's: answers are decoded and tokenised \
                 anew for it"
            );
            if self.tokenizer.template().is_some() {
                println!(
                    "           it does not see the special tokens of the policy's chat template: \
                     better train a reward model with the policy's tokenizer"
                );
            }
        } else if judge.context() < self.context {
            println!(
                "           it reads the last {} tokens of a prompt and answer",
                judge.context()
            );
        }
        Ok(Some(judge))
    }

    /// Answers to the first of the held-out `prompts`.
    fn sampler(&self, policy: &Policy, prompts: &[Vec<u32>]) -> Result<Option<Sampler>> {
        let args = &self.args;
        let few: Vec<Vec<u32>> = prompts.iter().take(args.judged).cloned().collect();
        if few.is_empty() {
            return Ok(None);
        }
        let options = GenerateOptions {
            sampling: SamplingOptions {
                temperature: args.temperature,
                top_k: args.top_k,
                top_p: args.top_p,
                greedy: false,
            },
            max_new_tokens: args.max_new_tokens,
            stop_tokens: self.stop_tokens.clone(),
            seed: args.seed,
        };
        Ok(Some(Sampler::new(policy, few, options)?))
    }

    /// Shows and writes the answers to held-out prompts.
    fn show(&self, prompts: &[Vec<u32>], columns: &[(&str, &[Judged])]) -> Result<()> {
        println!("answers to held-out prompts");
        let text = show_samples(&self.tokenizer, prompts, columns, self.args.shown);
        println!("{text}");
        write_samples(&self.args.out, &self.tokenizer, prompts, columns)
    }

    fn print_model(&self, policy: &Policy) {
        let config = &self.config;
        println!(
            "policy     {} parameters: {} layers, width {}, {} heads, context {}, vocabulary {}",
            policy.parameters().count(),
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.max_position_embeddings,
            config.vocab_size
        );
    }
}

/// Draws answers and has them judged, where there is a judge.
fn draw(sampler: &mut Option<Sampler>, judge: &mut Option<RewardJudge>) -> Result<Vec<Judged>> {
    let Some(sampler) = sampler else {
        return Ok(Vec::new());
    };
    let reward = judge.as_mut().map(|judge| judge as &mut dyn Reward);
    sampler.draw(reward)
}

fn new_config(args: &Args, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    let (layers, width) = (args.layers.unwrap_or(2), args.width.unwrap_or(128));
    let shape = (layers, width, args.heads.unwrap_or(4));
    new_gpt2(tokenizer, args.context.unwrap_or(256), shape)
}

/// Lists the lines that cannot be used: the first few with their reason.
fn print_left_out(skipped: &[Skipped]) {
    const SHOWN: usize = 4;
    for skipped in skipped.iter().take(SHOWN) {
        println!(
            "           line {} left out: {}",
            skipped.line, skipped.reason
        );
    }
    if skipped.len() > SHOWN {
        println!("           {} more left out", skipped.len() - SHOWN);
    }
}
