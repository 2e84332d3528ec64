//! What a run measures, step by step: `metrics.jsonl` for programs, events for TensorBoard.

use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prefgrad::{Error, Result};
use serde_json::Value;

use crate::files::{OutputFile, open_text};

const FILE_NAME: &str = "metrics.jsonl";

/// Writes each step's values to both places, and through to the system at once: a run that is
/// killed loses none of the steps it has recorded.
#[derive(Debug)]
pub struct Metrics {
    lines: File,
    events: EventFile,
    folder: std::path::PathBuf,
}

impl Metrics {
    /// Starts a run: an older `metrics.jsonl` in the folder is replaced, and TensorBoard is told
    /// to forget what older event files there say.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder is missing or cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        Self::open(folder, None)
    }

    /// Goes on after `step` (a checkpoint's): what was recorded of later steps, and a line that
    /// was cut off, is dropped, since those steps are taken again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder cannot be read or written.
    pub fn resume(folder: &Path, step: u64) -> Result<Self> {
        Self::open(folder, Some(step))
    }

    fn open(folder: &Path, resumed: Option<u64>) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let failed = |source| io_error(folder, source);
        let mut kept = OutputFile::create(&path)?;
        if let Some(step) = resumed.filter(|_| path.exists()) {
            for line in lines_until(&path, step)? {
                writeln!(kept, "{line}").map_err(failed)?;
            }
        }
        kept.commit()?;
        Ok(Self {
            lines: File::options().append(true).open(&path).map_err(failed)?,
            events: EventFile::create(folder, resumed.map_or(0, |step| step + 1))
                .map_err(failed)?,
            folder: folder.to_owned(),
        })
    }

    /// Records the values of `step`, the number of steps taken. A value that is not finite
    /// becomes `null` in `metrics.jsonl`, as JSON has no other word for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], as on a full disk.
    pub fn record(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let line = json_line(step, values);
        self.lines
            .write_all(line.as_bytes())
            .and_then(|()| self.events.scalars(step, values))
            .map_err(|source| io_error(&self.folder, source))
    }
}

fn io_error(folder: &Path, source: std::io::Error) -> Error {
    Error::Io {
        action: "cannot record metrics in",
        path: folder.to_owned(),
        source,
    }
}

/// One object and its line end, `step` first and the rest in the caller's order.
fn json_line(step: u64, values: &[(&str, f64)]) -> String {
    let mut line = format!("{{\"step\":{step}");
    for &(name, value) in values {
        line.push_str(&format!(",{}:{}", Value::from(name), Value::from(value)));
    }
    line.push_str("}\n");
    line
}

fn lines_until(path: &Path, step: u64) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for line in open_text(path)?.lines() {
        // A line that was cut off inside a character is not text.
        let Ok(line) = line else { break };
        let Ok(object) = serde_json::from_str::<Value>(&line) else {
            break;
        };
        if object["step"].as_u64().is_some_and(|at| at <= step) {
            kept.push(line);
        }
    }
    Ok(kept)
}

/// A TensorBoard event file: records of `length, checksum, event, checksum`, in which an event
/// is a `tensorflow.Event` in protocol buffers' wire format. Only scalars, so the few fields that
/// takes are written by hand. (TensorFlow, `core/lib/io/record_writer.h` and
/// `core/util/event.proto`.)
#[derive(Debug)]
struct EventFile {
    file: File,
}

impl EventFile {
    /// A new file in `folder`; of older ones TensorBoard shows the steps before `first_step`.
    fn create(folder: &Path, first_step: u64) -> std::io::Result<Self> {
        let seconds = unix_time() as u64;
        let process = std::process::id();
        let mut number = 0;
        // TensorBoard reads the files of a folder in the order of their names.
        let file = loop {
            let name =
                format!("events.out.tfevents.{seconds:010}.prefgrad.{process:010}.{number:04}");
            match File::create_new(folder.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                made => break made?,
            }
        };
        let mut events = Self { file };
        let mut version = Vec::new();
        put_double(&mut version, 1, unix_time());
        put_bytes(&mut version, 3, b"brain.Event:2");
        events.write(&version)?;

        // SessionLog { status: START }: what follows replaces the steps from this one on.
        let mut start = Vec::new();
        put_double(&mut start, 1, unix_time());
        put_varint(&mut start, 2, first_step);
        put_bytes(&mut start, 7, &[0x08, 0x01]);
        events.write(&start)?;
        Ok(events)
    }

    fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for &(tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_float(&mut entry, 2, value as f32);
            put_bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        put_double(&mut event, 1, unix_time());
        put_varint(&mut event, 2, step);
        put_bytes(&mut event, 5, &summary);
        self.write(&event)
    }

    fn write(&mut self, event: &[u8]) -> std::io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_checksum(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_checksum(event).to_le_bytes());
        self.file.write_all(&record)
    }
}

/// CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays good.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn put_key(out: &mut Vec<u8>, field: u8, wire_type: u8) {
    out.push(field << 3 | wire_type);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_varint(out: &mut Vec<u8>, field: u8, number: u64) {
    put_key(out, field, 0);
    put_number(out, number);
}

fn put_double(out: &mut Vec<u8>, field: u8, value: f64) {
    put_key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_key(out, field, 2);
    put_number(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_float(out: &mut Vec<u8>, field: u8, value: f32) {
    put_key(out, field, 5);
    out.extend(value.to_le_bytes());
}
