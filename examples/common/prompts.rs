//! Prompts for sampling, from files of preferences or of prompts alone.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Result, bail};
use prefgrad::data::{
    Boundary, ReadOptions, Record, Skipped, TokeniseOptions, Tokenizer, read_records, tokenise,
};
use serde_json::{Value, json};

use crate::files::open_text;

/// What a file says, and which of its lines are prompts alone.
pub struct PromptFile {
    /// The records by line; that of a prompt alone has one response that means nothing.
    pub records: Vec<Record>,
    /// The lines that cannot be used.
    pub skipped: Vec<Skipped>,
    /// How many lines the file has.
    pub lines: usize,
    alone: HashSet<usize>,
}

impl PromptFile {
    /// Reads JSON Lines, also `.gz`: records in the forms of [`read_records`], or
    /// `{"prompt": ...}` alone.
    ///
    /// # Errors
    ///
    /// As [`read_records`].
    pub fn read(path: &Path) -> Result<Self> {
        let mut alone = HashSet::new();
        let mut text = Vec::new();
        let mut reader = open_text(path)?;
        let mut line = Vec::new();
        let mut number = 0;
        while reader.read_until(b'\n', &mut line)? > 0 {
            number += 1;
            if let Some(whole) = with_response(&line) {
                alone.insert(number);
                writeln!(text, "{whole}")?;
            } else {
                text.append(&mut line);
            }
            line.clear();
        }
        let options = ReadOptions {
            strict: false,
            for_scoring: true,
        };
        let read = read_records(text.as_slice(), &path.display().to_string(), options)?;
        Ok(Self {
            records: read.records,
            skipped: read.skipped,
            lines: read.lines,
            alone,
        })
    }

    /// Whether the record is a prompt without answers.
    pub fn is_alone(&self, record: &Record) -> bool {
        self.alone.contains(&record.line)
    }

    /// The tokens of the prompts of `records`, which came from this file.
    ///
    /// Where a record has answers, its prompt ends at the [`Boundary::Prompt`].
    ///
    /// # Errors
    ///
    /// As [`tokenise`]; no record has a prompt.
    pub fn prompts(
        &self,
        records: &[Record],
        tokenizer: &dyn Tokenizer,
        (vocab_size, longest): (usize, usize),
    ) -> Result<Prompts> {
        let options = TokeniseOptions {
            context: usize::MAX,
            vocab_size,
            for_scoring: true,
            boundary: Boundary::Prompt,
        };
        let mut prompts = Prompts::default();
        for record in records {
            let tokens = match self.is_alone(record) {
                true => tokenizer.encode(&record.prompt)?,
                false => {
                    let one = std::slice::from_ref(record);
                    let tokenised = tokenise(one, "data", tokenizer, options)?;
                    let first = tokenised.records.into_iter().next();
                    first.map(|record| record.prompt).unwrap_or_default()
                }
            };
            if tokens.is_empty() {
                prompts.without.push(record.line);
                continue;
            }
            let excess = tokens.len().saturating_sub(longest);
            prompts.shortened += usize::from(excess > 0);
            prompts.tokens.push(tokens[excess..].to_vec());
        }
        if prompts.tokens.is_empty() && !records.is_empty() {
            bail!("no record has a prompt that could be answered");
        }
        Ok(prompts)
    }
}

/// Prompts in tokens.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    /// The token ids of each prompt, at least one.
    pub tokens: Vec<Vec<u32>>,
    /// How many lost tokens from their left.
    pub shortened: usize,
    /// Lines of the records without a prompt.
    pub without: Vec<usize>,
}

/// A prompt alone, made a record by a response that is never looked at; other lines stay as they
/// are.
fn with_response(line: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let object = value.as_object()?;
    let has = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    let answered = ["chosen", "rejected", "responses"].into_iter().any(has);
    if answered || !has("prompt") {
        return None;
    }
    let mut whole = object.clone();
    whole.insert("responses".into(), json!([" "]));
    Some(Value::Object(whole))
}
