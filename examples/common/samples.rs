//! What a policy writes to held-out prompts, for people to read.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use prefgrad::model::{Completion, Finish, GenerateOptions, Generator, GeneratorCapacity, Policy};
use prefgrad::train::{Reward, Sample};
use serde_json::{Value, json};

use crate::files::OutputFile;
use crate::model_folder::LoadedTokenizer;

/// Characters of a prompt's end that are shown.
const SHOWN_PROMPT: usize = 160;

/// An answer and how it was judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The answer.
    pub completion: Completion,
    /// Its reward, where something judges.
    pub reward: Option<f32>,
}

/// Draws one answer to each of a few prompts, always with the same random numbers.
pub struct Sampler {
    generator: Generator,
    prompts: Vec<Vec<u32>>,
    options: GenerateOptions,
}

impl Sampler {
    /// Answers by `policy`, as it is whenever they are drawn, to `prompts`.
    ///
    /// # Errors
    ///
    /// As [`Generator::new`].
    pub fn new(policy: &Policy, prompts: Vec<Vec<u32>>, options: GenerateOptions) -> Result<Self> {
        let count = prompts.len().clamp(1, 16);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let capacity = GeneratorCapacity {
            prompt_tokens: count * longest,
            prompts: count,
            sequences: count,
            new_tokens: options.max_new_tokens,
        };
        let parameters = policy.parameters();
        Ok(Self {
            generator: Generator::new(policy.gpu(), policy.config(), parameters, capacity)?,
            prompts,
            options,
        })
    }

    /// The prompts.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Draws an answer to each prompt.
    ///
    /// # Errors
    ///
    /// What the generator and the reward report.
    pub fn draw(&mut self, reward: Option<&mut dyn Reward>) -> Result<Vec<Judged>> {
        let completions = self.generator.generate(&self.prompts, 1, &self.options)?;
        let rewards = match reward {
            None => vec![None; completions.len()],
            Some(reward) => {
                let samples = completions.iter().map(|completion| Sample {
                    prompt: &self.prompts[completion.prompt],
                    completion: &completion.tokens,
                    finish: completion.finish,
                });
                let samples: Vec<Sample<'_>> = samples.collect();
                let rewards = match samples.is_empty() {
                    true => Vec::new(),
                    false => reward.rewards(&samples)?,
                };
                rewards.into_iter().map(Some).collect()
            }
        };
        let judged = completions.into_iter().zip(rewards);
        Ok(judged
            .map(|(completion, reward)| Judged { completion, reward })
            .collect())
    }
}

/// The mean reward; `None` where nothing was judged.
pub fn mean_reward(answers: &[Judged]) -> Option<f64> {
    let rewards: Vec<f64> = answers
        .iter()
        .filter_map(|answer| answer.reward.map(f64::from))
        .collect();
    (!rewards.is_empty()).then(|| rewards.iter().sum::<f64>() / rewards.len() as f64)
}

/// The first `count` prompts with their answers, under the names of the policies that gave them.
pub fn show_samples(
    tokenizer: &LoadedTokenizer,
    prompts: &[Vec<u32>],
    columns: &[(&str, &[Judged])],
    count: usize,
) -> String {
    let mut text = String::new();
    for (index, prompt) in prompts.iter().take(count).enumerate() {
        let whole = one_line(&tokenizer.text(prompt));
        let _ = writeln!(text, "  prompt  {}", last(&whole, SHOWN_PROMPT));
        for (name, answers) in columns {
            let answer = &answers[index];
            let reward = match answer.reward {
                Some(reward) => format!("{reward:>8.2}"),
                None => String::new(),
            };
            let cut = match answer.completion.finish {
                Finish::Stop => "",
                Finish::Length => " [...]",
            };
            let words = one_line(&tokenizer.text(&answer.completion.tokens));
            let _ = writeln!(text, "  {name:<7}{reward}  {words}{cut}");
        }
    }
    text
}

/// Line breaks become a sign, so that a text stays a line.
pub fn one_line(text: &str) -> String {
    let text = text.trim().replace("\r\n", "\n").replace('\n', " ⏎ ");
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn last(text: &str, count: usize) -> String {
    let skipped = text.chars().count().saturating_sub(count);
    let dots = if skipped > 0 { "..." } else { "" };
    format!("{dots}{}", text.chars().skip(skipped).collect::<String>())
}

/// Writes `samples.jsonl`: a line a prompt, with the answers under their columns' names.
///
/// # Errors
///
/// The file cannot be written.
pub fn write_samples(
    folder: &Path,
    tokenizer: &LoadedTokenizer,
    prompts: &[Vec<u32>],
    columns: &[(&str, &[Judged])],
) -> Result<()> {
    let mut file = OutputFile::create(&folder.join("samples.jsonl"))?;
    for (index, prompt) in prompts.iter().enumerate() {
        let mut line = json!({ "prompt": tokenizer.text(prompt) });
        for (name, answers) in columns {
            let Judged { completion, reward } = &answers[index];
            line[*name] = json!({
                "text": tokenizer.text(&completion.tokens),
                "reward": reward,
                "tokens": completion.tokens.len(),
                "finish": finish_name(completion.finish),
            });
        }
        writeln!(file, "{}", Value::to_string(&line))?;
    }
    file.commit()?;
    Ok(())
}

/// `stop` or `length`, as other programs have it.
pub fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
