//! Reading what a model should judge, and writing a line for each line that was read.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use prefgrad::Result;
use prefgrad::data::{
    Boundary, ReadOptions, Record, Records, TokenRecord, TokeniseOptions, Tokenised, read_records,
    tokenise,
};
use prefgrad::model::ModelConfig;
use serde_json::Value;

use crate::files::OutputFile;
use crate::model_folder::LoadedTokenizer;
use crate::record_file::open_records;

/// The records of a file, as texts and as tokens.
#[derive(Debug)]
pub struct Scoring {
    read: Records,
    tokenised: Tokenised,
    context: usize,
}

impl Scoring {
    /// Reads a file whose responses need not be compared.
    ///
    /// # Errors
    ///
    /// The file cannot be read or has no usable record; the tokenizer does not fit the model.
    pub fn read(
        data: &Path,
        tokenizer: &LoadedTokenizer,
        config: &ModelConfig,
        boundary: Boundary,
    ) -> Result<Self> {
        let place = data.display().to_string();
        let options = ReadOptions {
            for_scoring: true,
            template: tokenizer.template(),
            ..ReadOptions::default()
        };
        let read = read_records(open_records(data)?, &place, options)?;
        let options = TokeniseOptions {
            context: config.max_position_embeddings,
            vocab_size: config.vocab_size,
            for_scoring: true,
            boundary,
        };
        let tokenised = tokenise(&read.records, &place, &**tokenizer, options)?;
        Ok(Self {
            read,
            tokenised,
            context: options.context,
        })
    }

    /// The records that can be judged.
    pub fn records(&self) -> &[TokenRecord] {
        &self.tokenised.records
    }

    /// The tokens of the largest record: a batch must hold it.
    pub fn largest(&self) -> usize {
        let tokens =
            |r: &TokenRecord| r.prompt.len() + r.answers.iter().map(Vec::len).sum::<usize>();
        self.records().iter().map(tokens).max().unwrap_or(1)
    }

    /// Writes a line for each line that is not blank: what `judged` says of a record, by its index
    /// in [`records`](Self::records), or what `error` makes of a line's number and the reason why
    /// it cannot be used.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(
        &self,
        mut out: OutputFile,
        judged: impl Fn(&Record, usize) -> Value,
        error: impl Fn(usize, &str) -> Value,
    ) -> anyhow::Result<()> {
        let mut lines: HashMap<usize, Value> = HashMap::new();
        for skipped in self.read.skipped.iter().chain(&self.tokenised.dropped) {
            lines.insert(skipped.line, error(skipped.line, &skipped.reason));
        }
        let texts: HashMap<usize, &Record> =
            self.read.records.iter().map(|r| (r.line, r)).collect();
        for (index, record) in self.records().iter().enumerate() {
            if let Some(text) = texts.get(&record.line) {
                lines.insert(record.line, judged(text, index));
            }
        }
        for line in 1..=self.read.lines {
            if let Some(value) = lines.get(&line) {
                writeln!(out, "{value}")?;
            }
        }
        out.commit()?;
        Ok(())
    }

    /// How many records were judged and how many could not be.
    pub fn summary(&self) -> String {
        format!(
            "{} records scored, {} could not be; {} prompts lost their beginning to fit {} tokens",
            self.records().len(),
            self.read.skipped.len() + self.tokenised.dropped.len(),
            self.tokenised.truncated.len(),
            self.context
        )
    }
}
