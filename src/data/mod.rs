//! Preference records and packed batches: everything between a file and the device.
//!
//! The way of a record: [`read_records`] reads lines, [`split_by_prompt`] sets prompts apart for
//! evaluation, [`tokenise()`] turns texts into token ids with one shared prompt a record,
//! [`DataOrder`] says which record comes next, and [`Packer`] lays records out as one packed run
//! without padding, in which a prompt stands once.
//!
//! ```
//! use prefgrad::data::{
//!     Boundary, ByteTokenizer, Capacity, PackOptions, ReadOptions, TokeniseOptions, pack_all, read_records,
//!     tokenise,
//! };
//!
//! # fn main() -> prefgrad::Result<()> {
//! let file = r#"{"prompt": "Two plus two? ", "chosen": "Four.", "rejected": "Five."}"#;
//! let read = read_records(file.as_bytes(), "sums.jsonl", ReadOptions::default())?;
//! let options = TokeniseOptions {
//!     context: 64,
//!     vocab_size: 258,
//!     for_scoring: false,
//!     boundary: Boundary::Longest,
//! };
//! let tokenised = tokenise(&read.records, "sums.jsonl", &ByteTokenizer, options)?;
//! let capacity = Capacity { tokens: 256, segments: 16, answers: 16, pairs: 8, targets: 256 };
//! let batches = pack_all(&tokenised.records, capacity, PackOptions::default())?;
//! // "Two plus two? F" stands once, "our." and "ive." follow, each with its end-of-text token.
//! assert_eq!(batches[0].tokens.len(), 15 + 5 + 5);
//! assert_eq!(batches[0].tokens_without_sharing, 20 + 20);
//! # Ok(())
//! # }
//! ```

pub mod batch;
mod chat;
mod comparisons;
mod dialogue;
mod entries;
mod line;
mod order;
mod pack;
mod packed;
mod random;
mod records;
mod tokenise;
mod tokenizer;

pub use batch::{Answer, Counts, NONE, Pair, RowList, Segment, TILE_ROWS, Target, Tile};
pub use chat::{ChatTemplate, Message, Turns};
pub use order::{DataOrder, Shuffle, split_by_prompt};
pub use pack::{PackOptions, Packer, Targets, pack_all};
pub use packed::{Batch, Capacity, RowLists};
pub use random::{Random, split_mix};
pub use records::{Preference, ReadOptions, Record, RecordForm, Records, Skipped, read_records};
pub use tokenise::{Boundary, TokenRecord, TokeniseOptions, Tokenised, tokenise};
pub use tokenizer::{ByteTokenizer, Tokenizer};

use crate::Error;

/// An [`Error::Data`] about line `line` of the file `place`.
fn line_error(place: &str, line: usize, detail: impl Into<String>) -> Error {
    Error::Data {
        place: format!("{place}:{line}"),
        detail: detail.into(),
    }
}
