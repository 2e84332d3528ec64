//! JSON in the spacing of Python's `json.dumps`.

use std::io::{Result, Write};

use minijinja::value::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// On one line, with a blank behind commas and colons; with `indent` as that prints.
pub(crate) fn to_json(value: &Value, indent: Option<usize>) -> serde_json::Result<String> {
    use serde::Serialize;
    let mut text = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut text, OneLine))?,
        Some(width) => {
            let blanks = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut text, formatter))?;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> Result<()> {
        out.write_all(b": ")
    }
}
