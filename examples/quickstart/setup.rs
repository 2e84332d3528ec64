//! What every stage needs: device, words, questions and the writer's sizes.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use example_tools::files::OutputFile;
use example_tools::hf_tokenizer::HfTokenizer;
use prefgrad::Gpu;
use prefgrad::data::{Random, Tokenizer};
use prefgrad::model::{Finish, GenerateOptions, Gpt2Config, ModelConfig, SamplingOptions};
use serde_json::json;

use crate::world::{EOS, PAD, Question, tokenizer_json, utility};

/// The longest question and answer together, in words and punctuation.
const CONTEXT: usize = 64;
/// The longest answer.
pub const ANSWER: usize = 32;
/// Questions that training never sees.
const FRESH: usize = 18;

/// Device, words, questions and the writer's sizes.
pub struct Setup {
    /// The device.
    pub gpu: Gpu,
    /// The words of this world.
    pub tokenizer: HfTokenizer,
    /// The sizes of all models.
    pub config: ModelConfig,
    /// What ends an answer.
    pub eos: u32,
    /// Questions to learn from.
    pub questions: Vec<Question>,
    /// Questions to judge by.
    pub fresh: Vec<Question>,
}

impl Setup {
    /// Writes this world's tokenizer and opens the device.
    pub fn new(out: &Path, seed: u64) -> Result<Self> {
        let gpu = Gpu::new()?;
        println!(
            "device     {} ({})",
            gpu.info().name,
            gpu.info().driver_info
        );
        write_tokenizer(out)?;
        let tokenizer = HfTokenizer::load(out)?;
        let eos = tokenizer
            .eos_token_id()
            .context("this world's tokenizer has an end of text")?;
        let config: ModelConfig = Gpt2Config {
            vocab_size: tokenizer.vocab_size(),
            n_positions: CONTEXT,
            n_embd: 64,
            n_layer: 2,
            n_head: 4,
            n_inner: None,
            layer_norm_epsilon: 1e-5,
            eos_token_id: Some(eos),
            pad_token_id: tokenizer.pad_token_id(),
            tie_word_embeddings: true,
        }
        .into();
        let mut questions = Question::all(&mut Random::new(seed, 0));
        let fresh = questions.split_off(questions.len() - FRESH);
        Ok(Self {
            gpu,
            tokenizer,
            config,
            eos,
            questions,
            fresh,
        })
    }

    /// The tokens of some questions.
    pub fn prompts(&self, questions: &[Question]) -> Result<Vec<Vec<u32>>> {
        let tokens = |question: &Question| Ok(self.tokenizer.encode(&question.text())?);
        questions.iter().map(tokens).collect()
    }

    /// An answer's words, punctuated as people do.
    pub fn text(&self, tokens: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(tokens)?;
        Ok(text.replace(" ,", ",").replace(" .", "."))
    }

    /// What people truly think of an answer; one that does not end annoys them as well.
    pub fn gold(&self, tokens: &[u32], finish: Finish) -> Result<f64> {
        let annoyance = if finish == Finish::Length { -1.0 } else { 0.0 };
        Ok(utility(&self.text(tokens)?) + annoyance)
    }

    /// Answers drawn as the writer would give them.
    pub fn sampling(&self, seed: u64) -> GenerateOptions {
        GenerateOptions {
            sampling: SamplingOptions::default(),
            max_new_tokens: ANSWER,
            stop_tokens: vec![self.eos],
            seed,
        }
    }
}

/// Puts the tokenizer's files into a model's folder.
pub fn write_tokenizer(folder: &Path) -> Result<()> {
    let files = [
        ("tokenizer.json", tokenizer_json()),
        (
            "tokenizer_config.json",
            json!({"eos_token": EOS, "pad_token": PAD}),
        ),
    ];
    for (name, json) in files {
        let mut file = OutputFile::create(&folder.join(name))?;
        write!(file, "{json:#}")?;
        file.commit()?;
    }
    Ok(())
}
