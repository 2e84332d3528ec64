//! Reading preference files: JSON Lines in, records and the reasons for what was left out.

use std::io::BufRead;

use super::chat::ChatTemplate;
use super::line::parse_line;
use super::line_error;
use crate::{Error, Result};

/// One comparison: which response people preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preference {
    /// Index of the preferred response.
    pub chosen: usize,
    /// Index of the other response.
    pub rejected: usize,
    /// What the comparison counts in the loss; the preferences of a record sum to the record's
    /// weight. 0 or more, and finite.
    pub weight: f32,
    /// How much higher the preferred reward should be, in units of reward; finite.
    pub margin: f32,
}

/// How a record stood in its file, which is how its scores should be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordForm {
    /// `chosen` and `rejected`: responses 0 and 1.
    Pair,
    /// A list of `responses`.
    Ranking,
    /// A `prompt` alone, without responses: see [`ReadOptions::prompts_alone`].
    Prompt,
}

/// A prompt, its responses and what people preferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The line of the file it stood in, from 1.
    pub line: usize,
    /// How it was written.
    pub form: RecordForm,
    /// The prompt; empty where the file has none, as in HH-RLHF's two fields: each response is
    /// then a whole text, and what the texts share is found on their tokens.
    pub prompt: String,
    /// What follows the prompt, none of them empty. At least one, except of a
    /// [`RecordForm::Prompt`]; for training at least two.
    pub responses: Vec<String>,
    /// Whether a chat template wrote the texts with all special tokens that they need: none is
    /// added at their beginning or end.
    pub templated: bool,
    /// The comparisons; for training at least one.
    pub preferences: Vec<Preference>,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The line of the file, from 1.
    pub line: usize,
    /// Why, for a person to read.
    pub reason: String,
}

/// What a file holds. Each line of the file that is not blank is either a record or skipped.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Records {
    /// The usable records, by line.
    pub records: Vec<Record>,
    /// The unusable lines, by line.
    pub skipped: Vec<Skipped>,
    /// How many lines the file has, blank ones included.
    pub lines: usize,
}

/// How to read a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// Make the first unusable line an error instead of leaving it out.
    pub strict: bool,
    /// Read for scoring, which needs texts only: equal responses, a single response, ties, and
    /// missing or unusable ranks, weights and margins are then no reason to leave a line out; such
    /// a record has no preferences.
    pub for_scoring: bool,
    /// Also take lines that hold a `prompt` and no responses, as sampling needs.
    pub prompts_alone: bool,
    /// What writes chat messages as text; `None` for [`Turns`](super::Turns).
    pub template: Option<&'a dyn ChatTemplate>,
}

/// Reads a preference file: JSON Lines, already decompressed, UTF-8. `place` names it in errors.
///
/// A line is an object in one of these forms; other fields and blank lines are passed over, and
/// a field that is `null` counts as absent:
///
/// - `{"prompt", "chosen", "rejected"}`, one comparison; without `prompt` it is HH-RLHF's form
///   (Bai et al. 2022, arXiv 2204.05862), two whole texts that begin alike.
/// - `{"prompt", "responses": [..], "ranks": [..]}`, a ranking: one number a response, lower is
///   better, ties allowed; or `"scores"` instead of ranks, higher is better. It yields one
///   [`Preference`] for each strict order between different texts, with the record's weight
///   divided by their number, so that a ranking counts as much as a comparison (Ouyang et al.
///   2022, arXiv 2203.02155, section 3.5, which divides by K choose 2).
/// - Either with `weight` (what the record counts, 1) and `margin` (of each comparison, 0).
///
/// A text is a string or a list of chat messages `{"role", "content"}`, of which the
/// [`template`](ReadOptions::template) makes text; where it is a model's own, the texts are those of
/// TRL's `apply_chat_template`. As soon as a record has messages:
///
/// - A prompt of messages (TRL's explicit prompt) stands before responses that are the answer's
///   messages, and is taken off responses that all repeat it. A response that is a string is the
///   assistant's message.
/// - Without it the responses are whole conversations (TRL's implicit prompt), and the prompt is the
///   messages that they share, except the last of each. A prompt that is a string is passed over
///   then; but before responses that begin with the assistant's message it is the user's.
/// - The prompt's text ends with the template's generation prompt, or where its last message ends
///   if that is the assistant's, and goes as far as the whole texts agree with it.
///
/// Unusable, and skipped with a reason: what is not JSON or not an object, missing or wrong-typed
/// fields, an empty answer (no character at all; white space is an answer), messages that do not
/// end with the assistant's or that the template refuses, tool calls, chosen equal to rejected, a weight or margin that is not finite, a weight below 0, ranks of the wrong length,
/// a ranking without a strict order.
///
/// # Errors
///
/// [`Error::Data`] naming file and line: the reader fails (a compressed file that is cut off), a
/// line is not UTF-8, no line is usable, or with [`strict`](ReadOptions::strict) any is not.
pub fn read_records(
    mut reader: impl BufRead,
    place: &str,
    options: ReadOptions<'_>,
) -> Result<Records> {
    let mut read = Records::default();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let line = read.lines + 1;
        let count = reader
            .read_until(b'\n', &mut bytes)
            .map_err(|error| broken_off(place, line, &error))?;
        if count == 0 {
            break;
        }
        read.lines = line;
        let text = utf8(&bytes, place, line)?;
        if text.is_empty() {
            continue;
        }
        match parse_line(text, line, &options) {
            Ok(record) => read.records.push(record),
            Err(reason) if options.strict => return Err(line_error(place, line, reason)),
            Err(reason) => read.skipped.push(Skipped { line, reason }),
        }
    }
    if read.records.is_empty() {
        return Err(nothing_usable(place, &read));
    }
    Ok(read)
}

fn broken_off(place: &str, line: usize, error: &std::io::Error) -> Error {
    line_error(
        place,
        line,
        format!(
            "the file cannot be read beyond this line ({error}); it may be cut off or damaged: \
             fetch it again"
        ),
    )
}

/// The line as text, without a byte order mark and surrounding white space.
fn utf8<'a>(bytes: &'a [u8], place: &str, line: usize) -> Result<&'a str> {
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if line == 1 => rest,
        _ => bytes,
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.trim()),
        Err(error) => Err(line_error(
            place,
            line,
            format!(
                "byte {} of the line is not UTF-8: convert the file to UTF-8 (a compressed file \
                 must be named as such)",
                error.valid_up_to() + 1
            ),
        )),
    }
}

fn nothing_usable(place: &str, read: &Records) -> Error {
    let why = match read.skipped.first() {
        None => "it is empty".to_owned(),
        Some(first) => format!(
            "all {} were skipped, line {}: {}",
            read.skipped.len(),
            first.line,
            first.reason
        ),
    };
    Error::Data {
        place: place.to_owned(),
        detail: format!(
            "no usable record ({why}); each line must be a JSON object with `chosen` and \
             `rejected`, or with `responses` and `ranks`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    const GOOD: &str = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
    const EQUAL: &str = r#"{"prompt": "p", "chosen": "a", "rejected": "a"}"#;

    fn read(text: &[u8], strict: bool) -> Result<Records> {
        let options = ReadOptions {
            strict,
            ..ReadOptions::default()
        };
        read_records(text, "file.jsonl", options)
    }

    #[test]
    fn lines_are_counted_as_the_file_has_them() {
        let text = format!("\u{feff}{GOOD}\r\n\n  \nnonsense\n{EQUAL}\n{GOOD}");
        let read = read(text.as_bytes(), false).unwrap();
        assert_eq!(read.lines, 6);
        let lines: Vec<usize> = read.records.iter().map(|record| record.line).collect();
        assert_eq!(lines, [1, 6]);
        let skipped: Vec<usize> = read.skipped.iter().map(|skip| skip.line).collect();
        assert_eq!(skipped, [4, 5]);
        assert!(read.skipped[0].reason.starts_with("not JSON"));
    }

    #[test]
    fn strict_stops_at_the_first_unusable_line() {
        let text = format!("{GOOD}\n\n{EQUAL}\nnonsense\n");
        let error = read(text.as_bytes(), true).unwrap_err();
        assert_eq!(
            error.to_string(),
            "file.jsonl:3: `chosen` and `rejected` are equal"
        );
        assert!(read(format!("{GOOD}\n{GOOD}").as_bytes(), true).is_ok());
    }

    #[test]
    fn other_encodings_are_named_with_line_and_byte() {
        let mut text = format!("{GOOD}\n").into_bytes();
        text.extend(b"{\"chosen\": \"caf\xe9\", \"rejected\": \"b\"}\n");
        let error = read(&text, false).unwrap_err();
        assert!(matches!(error, Error::Data { .. }));
        let message = error.to_string();
        assert!(message.starts_with("file.jsonl:2: byte 16 "), "{message}");
    }

    #[test]
    fn nothing_usable_is_an_error() {
        let empty = read(b"\n\n", false).unwrap_err().to_string();
        assert!(empty.contains("it is empty"), "{empty}");
        let useless = read(format!("\n{EQUAL}\n").as_bytes(), false).unwrap_err();
        let message = useless.to_string();
        assert!(
            message.contains("line 2: `chosen` and `rejected` are equal"),
            "{message}"
        );
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }

    #[test]
    fn a_reader_that_fails_names_the_line() {
        let text = format!("{GOOD}\n{{\"chosen\": ");
        let reader = BufReader::new(text.as_bytes().chain(Broken));
        let error = read_records(reader, "file.jsonl.gz", ReadOptions::default()).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("file.jsonl.gz:2: "), "{message}");
        assert!(message.contains("cut off"), "{message}");
    }
}
