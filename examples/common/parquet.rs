//! Parquet files as lines of JSON.

use std::fs::File;
use std::path::Path;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use prefgrad::{Error, Result};
use serde_json::{Map, Value};

/// The columns that a record can have; others are not read.
const COLUMNS: [&str; 8] = [
    "prompt",
    "chosen",
    "rejected",
    "responses",
    "ranks",
    "scores",
    "weight",
    "margin",
];

/// The rows of a file, a row group at a time, each as a line of JSON.
pub(crate) struct RowGroups {
    reader: SerializedFileReader<File>,
    columns: Type,
    next: usize,
}

impl RowGroups {
    /// Opens the file and looks whether it can be read.
    pub fn open(path: &Path) -> Result<Self> {
        let refused = |detail: String| Error::Data {
            place: path.display().to_string(),
            detail,
        };
        let file = File::open(path).map_err(|source| Error::Io {
            action: "cannot open",
            path: path.to_owned(),
            source,
        })?;
        let reader = SerializedFileReader::new(file)
            .map_err(|error| refused(format!("not a Parquet file, or a damaged one: {error}")))?;
        let columns = columns(&reader).map_err(&refused)?;
        check_compression(&reader).map_err(&refused)?;
        Ok(Self {
            reader,
            columns,
            next: 0,
        })
    }

    fn group(&self, index: usize) -> std::result::Result<Vec<u8>, ParquetError> {
        let group = self.reader.get_row_group(index)?;
        let mut lines = Vec::new();
        for row in group.get_row_iter(Some(self.columns.clone()))? {
            let line = object(&row?).map_err(ParquetError::General)?;
            lines.extend(line.to_string().bytes());
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

impl Iterator for RowGroups {
    type Item = std::io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.reader.num_row_groups() {
            return None;
        }
        self.next += 1;
        Some(self.group(self.next - 1).map_err(std::io::Error::other))
    }
}

/// Those of the file's columns that records have.
fn columns(reader: &SerializedFileReader<File>) -> std::result::Result<Type, String> {
    let schema = reader.metadata().file_metadata().schema();
    let (known, others): (Vec<_>, Vec<_>) = schema
        .get_fields()
        .iter()
        .cloned()
        .partition(|column| COLUMNS.contains(&column.name()));
    if known.is_empty() {
        let names: Vec<&str> = others.iter().map(|column| column.name()).collect();
        return Err(format!(
            "its columns are {}; `chosen` and `rejected`, `responses` or `prompt` are needed",
            names.join(", ")
        ));
    }
    Type::group_type_builder(schema.name())
        .with_fields(known)
        .build()
        .map_err(|error| error.to_string())
}

fn check_compression(reader: &SerializedFileReader<File>) -> std::result::Result<(), String> {
    let groups = reader.metadata().row_groups().iter();
    for column in groups.flat_map(|group| group.columns()) {
        let name = column.column_path().parts().first();
        let read = name.is_some_and(|name| COLUMNS.contains(&name.as_str()));
        match column.compression() {
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) => {}
            other if read => {
                return Err(format!(
                    "column `{}` is compressed with {other}: write the file anew without \
                     compression, with snappy or with gzip, as pyarrow does by \
                     `parquet.write_table(table, path, compression=\"snappy\")`",
                    column.column_path()
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn object(row: &Row) -> std::result::Result<Value, String> {
    let mut fields = Map::new();
    for (name, field) in row.get_column_iter() {
        let value = json(field).map_err(|reason| format!("`{name}` {reason}"))?;
        fields.insert(name.clone(), value);
    }
    Ok(Value::Object(fields))
}

/// The value as JSON; what JSON does not know, such as a date, as text.
fn json(field: &Field) -> std::result::Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float16(value) => Value::from(value.to_f32()),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Value::from(text),
            Err(_) => return Err("holds bytes that are not UTF-8".into()),
        },
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => {
            let values = list.elements().iter().map(json);
            Value::Array(values.collect::<std::result::Result<_, String>>()?)
        }
        other => Value::from(other.to_string()),
    })
}
