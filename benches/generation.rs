//! Tokens a second of generation with a cache and without, at several numbers of sequences:
//! `cargo bench --bench generation`.
//!
//! Without a cache each token takes a forward pass over every whole sequence, of which only the
//! last row's logits are computed and read back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prefgrad::Gpu;
use prefgrad::model::{
    GenerateOptions, Generator, GeneratorCapacity, Gpt2Config, Head, ModelConfig, Parameters,
    Purpose, SamplingOptions, model_parameters,
};

#[path = "../tests/support/uncached.rs"]
mod uncached;

use uncached::Uncached;

const SEQUENCES: [usize; 3] = [1, 8, 32];
const PROMPT: usize = 32;
const NEW_TOKENS: usize = 64;
/// Runs with a cache, of which the median counts.
const RUNS: usize = 3;

fn config() -> ModelConfig {
    Gpt2Config {
        vocab_size: 8192,
        n_positions: PROMPT + NEW_TOKENS,
        n_embd: 256,
        n_layer: 4,
        n_head: 4,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into()
}

fn median(mut run: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut times = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    times.get(RUNS / 2).copied().context("no run")
}

fn rate(sequences: usize, time: Duration) -> f64 {
    (sequences * NEW_TOKENS) as f64 / time.as_secs_f64()
}

fn main() -> Result<()> {
    let gpu = Gpu::new()?;
    let config = config();
    println!("{} ({:?})", gpu.variants(), gpu.info().device_type);
    println!(
        "GPT-2 of {} layers, width {}, vocabulary {}; prompts of {PROMPT} tokens, {NEW_TOKENS} new \
         ones; tokens/s, with a cache the median of {RUNS}",
        config.num_hidden_layers, config.hidden_size, config.vocab_size
    );
    let specs = model_parameters(&config, &[Head::Language]);
    let parameters = Parameters::allocate(&gpu, specs, Purpose::Score)?;
    parameters.initialise(&gpu, 7)?;
    println!(
        "{:>9}  {:>12}  {:>24}  {:>13}  {:>5}",
        "sequences", "cache, greedy", "cache, top-k 50, top-p 0.9", "without cache", "ratio"
    );
    for sequences in SEQUENCES {
        let prompts: Vec<Vec<u32>> = (0..sequences as u32)
            .map(|s| {
                (0..PROMPT as u32)
                    .map(|i| (s * 131 + i * 37) % 8192)
                    .collect()
            })
            .collect();
        let capacity = GeneratorCapacity {
            prompt_tokens: sequences * PROMPT,
            prompts: sequences,
            sequences,
            new_tokens: NEW_TOKENS,
        };
        let mut generator = Generator::new(&gpu, &config, &parameters, capacity)?;
        let mut with_cache = |sampling| {
            let options = GenerateOptions {
                sampling,
                max_new_tokens: NEW_TOKENS,
                stop_tokens: vec![],
                seed: 1,
            };
            let warm = generator.generate(&prompts, 1, &options)?;
            let time = median(|| {
                let started = Instant::now();
                generator.generate(&prompts, 1, &options)?;
                Ok(started.elapsed())
            })?;
            anyhow::Ok((warm, time))
        };
        let (greedy, cached) = with_cache(SamplingOptions::greedy())?;
        let truncated = SamplingOptions {
            top_k: 50,
            top_p: 0.9,
            ..SamplingOptions::default()
        };
        let (_, sampled) = with_cache(truncated)?;
        let tokens = sequences * (PROMPT + NEW_TOKENS);
        let whole = Uncached::new(&gpu, &config, &parameters, sequences, tokens)?;
        whole.logits(&prompts)?;
        let started = Instant::now();
        let expected = whole.greedy(&prompts, NEW_TOKENS)?;
        let uncached = started.elapsed();
        ensure!(
            greedy.iter().zip(&expected).all(|(a, b)| a.tokens == *b),
            "tokens with a cache differ from those without"
        );
        println!(
            "{sequences:>9}  {:>12.0}  {:>24.0}  {:>13.1}  {:>5.1}",
            rate(sequences, cached),
            rate(sequences, sampled),
            rate(sequences, uncached),
            uncached.as_secs_f64() / cached.as_secs_f64()
        );
    }
    Ok(())
}
