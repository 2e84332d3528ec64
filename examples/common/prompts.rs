//! Prompts for sampling, from files of preferences or of prompts alone.

use std::path::Path;

use anyhow::{Result, bail};
use prefgrad::data::{
    Boundary, ChatTemplate, ReadOptions, Record, RecordForm, Skipped, TokeniseOptions, Tokenizer,
    read_records, tokenise,
};

use crate::record_file::open_records;

/// What a file says.
pub struct PromptFile {
    /// The records by line.
    pub records: Vec<Record>,
    /// The lines that cannot be used.
    pub skipped: Vec<Skipped>,
    /// How many lines the file has.
    pub lines: usize,
}

impl PromptFile {
    /// Reads a file as [`open_records`] does, of records in the forms of [`read_records`] or of
    /// `{"prompt": ...}` alone; `template` writes chat messages.
    ///
    /// # Errors
    ///
    /// As [`open_records`] and [`read_records`].
    pub fn read(path: &Path, template: Option<&dyn ChatTemplate>) -> Result<Self> {
        let options = ReadOptions {
            for_scoring: true,
            prompts_alone: true,
            template,
            ..ReadOptions::default()
        };
        let place = path.display().to_string();
        let read = read_records(open_records(path)?, &place, options)?;
        Ok(Self {
            records: read.records,
            skipped: read.skipped,
            lines: read.lines,
        })
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
            let mut tokens = match record.form {
                RecordForm::Prompt => record.prompt_tokens(tokenizer)?,
                RecordForm::Pair | RecordForm::Ranking => {
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
            prompts.shortened += usize::from(tokens.len() > longest);
            tokenizer.shorten(&mut tokens, longest);
            prompts.tokens.push(tokens);
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
