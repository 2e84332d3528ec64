//! Preference files in the forms that they come in, as lines of JSON.

use std::io::{BufRead, Cursor, Read};
use std::path::Path;

use prefgrad::{Error, Result};
use serde_json::Value;

use crate::files::open_text;
use crate::parquet::RowGroups;

/// Opens a file of records for [`read_records`](prefgrad::data::read_records), whose line numbers
/// are then those of its rows.
///
/// The name decides: `.parquet` is Parquet (uncompressed, snappy or gzip), of whose columns those
/// of a record are read; `.json` may be one list of records; everything else, and a `.json` that is
/// no list, is JSON Lines. All but Parquet may be compressed with gzip.
///
/// # Errors
///
/// [`Error::Io`] where the file cannot be opened, [`Error::Data`] where it is not what its name
/// says, or compressed in another way.
pub fn open_records(path: &Path) -> Result<Box<dyn BufRead>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_ascii_lowercase();
    if name.ends_with(".parquet") {
        return Ok(Box::new(Chunks {
            chunks: RowGroups::open(path)?,
            current: Cursor::default(),
        }));
    }
    let mut reader = open_text(path)?;
    if !name.trim_end_matches(".gz").ends_with(".json") {
        return Ok(reader);
    }
    let failed = |error: &dyn std::fmt::Display| Error::Data {
        place: path.display().to_string(),
        detail: format!("not a list of records in JSON: {error}"),
    };
    let start = reader.fill_buf().map_err(|error| failed(&error))?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    if !start.trim_ascii_start().starts_with(b"[") {
        return Ok(reader);
    }
    let mut text = Vec::new();
    reader
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let records: Vec<Value> = serde_json::from_slice(text).map_err(|error| failed(&error))?;
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    Ok(Box::new(Cursor::new(lines.into_bytes())))
}

/// Bytes that come in pieces.
struct Chunks<I> {
    chunks: I,
    current: Cursor<Vec<u8>>,
}

impl<I: Iterator<Item = std::io::Result<Vec<u8>>>> BufRead for Chunks<I> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.current.fill_buf()?.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.current = Cursor::new(chunk?),
                None => break,
            }
        }
        self.current.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.current.consume(amount);
    }
}

impl<I: Iterator<Item = std::io::Result<Vec<u8>>>> Read for Chunks<I> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
