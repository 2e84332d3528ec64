//! Answers prompts with a language model: `--help` says how.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgGroup, Parser};
use example_tools::files::OutputFile;
use example_tools::model_folder::{LoadedTokenizer, config_of};
use example_tools::prompts::PromptFile;
use example_tools::samples::{finish_name, one_line};
use prefgrad::Gpu;
use prefgrad::model::{
    Completion, Finish, GenerateOptions, Generator, GeneratorCapacity, Head, ModelConfig,
    Parameters, Purpose, SamplingOptions, load_weights, model_parameters,
};
use serde_json::json;

/// Answers prompts with a language model, on any GPU.
///
/// Prints each answer with its log-probability under the model (at the temperature it was sampled
/// with), its tokens, and whether it ended by itself or was cut at the limit. The same seed gives
/// the same answers on one device.
#[derive(Debug, Parser)]
#[command(version, group(ArgGroup::new("asked").required(true).args(["prompt", "prompts"])))]
struct Args {
    /// The model's folder (config.json, model.safetensors, tokenizer.json; without it, bytes).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A prompt, as it stands.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Take --prompt as the user's message, in the model's chat template or, without one, in turns.
    #[arg(long, requires = "prompt")]
    chat: bool,
    /// Prompts: lines with "prompt", or a preference file; JSON Lines (also .gz), .json, .parquet.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Answers to each prompt.
    #[arg(long, default_value_t = 1, value_name = "N")]
    samples: usize,
    /// Take the likeliest token at each step.
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k"])]
    greedy: bool,
    /// Divides the logits: below 1 the likely becomes likelier.
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    temperature: f32,
    /// Sample among the likeliest tokens of this probability in all.
    #[arg(long, default_value_t = 1.0, value_name = "F")]
    top_p: f32,
    /// Sample among this many likeliest tokens; 0: all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 64, value_name = "N")]
    max_new_tokens: usize,
    /// Chooses the random numbers.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Answers worked on at one time.
    #[arg(long, default_value_t = 32, value_name = "N")]
    batch: usize,
    /// Write JSON Lines here: a line an answer, with its tokens and their log-probabilities.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let options = SamplingOptions {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        greedy: args.greedy,
    };
    options.validate()?;
    for (name, value) in [
        ("--samples", args.samples),
        ("--max-new-tokens", args.max_new_tokens),
        ("--batch", args.batch),
    ] {
        if value == 0 {
            bail!("{name} is 0: it must be 1 at least");
        }
    }
    let tokenizer = LoadedTokenizer::of_model(&args.model)?;
    let config = config_of(&args.model, &*tokenizer)?;
    let prompts = prompts(&args, &tokenizer, &config)?;
    let gpu = Gpu::new()?;
    let completions = generate(&gpu, &args, (&config, &tokenizer), &prompts, options)?;
    print(&tokenizer, &prompts, &completions);
    if let Some(path) = &args.out {
        let mut out = OutputFile::create(path)?;
        for completion in &completions {
            let prompt = &prompts[completion.prompt];
            writeln!(out, "{}", line(&tokenizer, prompt, completion))?;
        }
        out.commit()?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn prompts(
    args: &Args,
    tokenizer: &LoadedTokenizer,
    config: &ModelConfig,
) -> Result<Vec<Vec<u32>>> {
    let (answer, context) = (args.max_new_tokens, config.max_position_embeddings);
    let Some(path) = &args.prompts else {
        let text = args.prompt.as_deref().unwrap_or_default();
        let mut tokens = match args.chat {
            true => tokenizer.opened_by(text)?,
            false => tokenizer.encode_text(text)?,
        };
        if tokens.is_empty() {
            // The token between texts is also the one that begins them.
            tokens.extend(tokenizer.eos_token_id());
        }
        if tokens.is_empty() {
            bail!("--prompt is empty, and the tokenizer has no end-of-text token to begin with");
        }
        if tokens.len() + answer > context {
            bail!(
                "the prompt's {} tokens and an answer of {answer} exceed the model's context of \
                 {context}: shorten it, or lower --max-new-tokens",
                tokens.len()
            );
        }
        return Ok(vec![tokens]);
    };
    let file = PromptFile::read(path, tokenizer.template())?;
    for skipped in &file.skipped {
        eprintln!("line {} left out: {}", skipped.line, skipped.reason);
    }
    let sizes = (config.vocab_size, usize::MAX);
    let prompts = file.prompts(&file.records, &**tokenizer, sizes)?;
    for line in &prompts.without {
        eprintln!("line {line} left out: it has no prompt");
    }
    if let Some(long) = prompts.tokens.iter().find(|p| p.len() + answer > context) {
        bail!(
            "{}: a prompt of {} tokens and an answer of {answer} exceed the model's context of \
             {context}: shorten it, or lower --max-new-tokens",
            path.display(),
            long.len()
        );
    }
    Ok(prompts.tokens)
}

fn generate(
    gpu: &Gpu,
    args: &Args,
    (config, tokenizer): (&ModelConfig, &LoadedTokenizer),
    prompts: &[Vec<u32>],
    sampling: SamplingOptions,
) -> Result<Vec<Completion>> {
    let specs = model_parameters(config, &[Head::Language]);
    let parameters = Parameters::allocate(gpu, specs, Purpose::Score)?;
    if !load_weights(gpu, &parameters, &args.model)? {
        bail!(
            "{} has no language head (`lm_head.weight`), and its config.json does not tie it to \
             the token table",
            args.model.display()
        );
    }
    let sequences = args.batch.min(prompts.len() * args.samples);
    let at_once = sequences.div_ceil(args.samples).max(1);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
    let capacity = GeneratorCapacity {
        prompt_tokens: at_once * longest,
        prompts: at_once,
        sequences,
        new_tokens: args.max_new_tokens,
    };
    let mut generator = Generator::new(gpu, config, &parameters, capacity)?;
    let stop_tokens = tokenizer.stop_tokens(config.vocab_size)?;
    if stop_tokens.is_empty() {
        eprintln!(
            "the tokenizer has no end-of-text token: every answer runs to the limit of {} tokens",
            args.max_new_tokens
        );
    }
    let options = GenerateOptions {
        sampling,
        max_new_tokens: args.max_new_tokens,
        stop_tokens,
        seed: args.seed,
    };
    Ok(generator.generate(prompts, args.samples, &options)?)
}

fn print(tokenizer: &LoadedTokenizer, prompts: &[Vec<u32>], completions: &[Completion]) {
    let mut shown = None;
    for completion in completions {
        if shown.replace(completion.prompt) != Some(completion.prompt) {
            println!(
                "\n{}",
                one_line(&tokenizer.text(&prompts[completion.prompt]))
            );
        }
        let why = match completion.finish {
            Finish::Stop => "ended",
            Finish::Length => "cut at the limit",
        };
        println!(
            "  {:>8.2}  {:>4} tokens, {why:<16}  {}",
            logprob(completion),
            completion.tokens.len(),
            one_line(&tokenizer.text(&completion.tokens))
        );
    }
}

/// Of the whole answer, in nats.
fn logprob(completion: &Completion) -> f64 {
    completion.logprobs.iter().map(|&l| f64::from(l)).sum()
}

fn line(tokenizer: &LoadedTokenizer, prompt: &[u32], completion: &Completion) -> String {
    json!({
        "prompt": tokenizer.text(prompt),
        "sample": completion.sample,
        "text": tokenizer.text(&completion.tokens),
        "finish": finish_name(completion.finish),
        "logprob": logprob(completion),
        "tokens": completion.tokens,
        "logprobs": completion.logprobs,
        "sampling_logprobs": completion.sampling_logprobs,
    })
    .to_string()
}
