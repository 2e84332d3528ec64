//! Files of records: Parquet and lists against their twins in JSON Lines
//! (`tests/fixtures/make_parquet.py`).

use std::io::Write;
use std::path::{Path, PathBuf};

use example_tools::record_file::open_records;
use flate2::Compression;
use flate2::write::GzEncoder;
use prefgrad::Error;
use prefgrad::data::{ReadOptions, Records, read_records};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/records")
        .join(name)
}

fn read(path: &Path) -> Records {
    read_records(open_records(path).unwrap(), "f", ReadOptions::default()).unwrap()
}

#[test]
fn parquet_holds_the_records_of_its_twin() {
    for (name, records, skipped) in [
        ("texts", vec![1, 2, 4], vec![3, 5]),
        ("hh", vec![1, 2, 3], vec![]),
        ("explicit", vec![1, 2, 3, 4], vec![]),
        ("implicit", vec![1], vec![2]),
        ("ranking", vec![1, 2], vec![]),
    ] {
        let found = read(&fixture(&format!("{name}.parquet")));
        assert_eq!(found, read(&fixture(&format!("{name}.jsonl"))), "{name}");
        let lines: Vec<usize> = found.records.iter().map(|record| record.line).collect();
        assert_eq!(lines, records, "{name}");
        let lines: Vec<usize> = found.skipped.iter().map(|skipped| skipped.line).collect();
        assert_eq!(lines, skipped, "{name}");
    }
}

#[test]
fn a_list_holds_the_records_of_its_twin() {
    let expected = read(&fixture("explicit.jsonl"));
    assert_eq!(read(&fixture("explicit.json")), expected);
    let folder = tempfile::tempdir().unwrap();
    let list = std::fs::read(fixture("explicit.json")).unwrap();
    let path = folder.path().join("List.JSON.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(&[b"\xef\xbb\xbf \n", &list[..]].concat())
        .unwrap();
    std::fs::write(&path, encoder.finish().unwrap()).unwrap();
    assert_eq!(read(&path), expected);
    // Lines under the name of a list are lines.
    let path = folder.path().join("lines.json");
    std::fs::copy(fixture("explicit.jsonl"), &path).unwrap();
    assert_eq!(read(&path), expected);
    std::fs::write(&path, &list[..list.len() / 2]).unwrap();
    let error = open_records(&path).err().unwrap();
    assert!(
        error.to_string().contains("not a list of records"),
        "{error}"
    );
}

#[test]
fn parquet_that_cannot_be_read_says_why() {
    let error = open_records(&fixture("zstd.parquet")).err().unwrap();
    assert!(matches!(error, Error::Data { .. }));
    let message = error.to_string();
    assert!(
        message.contains("ZSTD") && message.contains("snappy"),
        "{message}"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    assert!(matches!(
        open_records(&path).err().unwrap(),
        Error::Io { .. }
    ));
    let whole = std::fs::read(fixture("texts.parquet")).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let error = open_records(&path).err().unwrap().to_string();
    assert!(error.contains("not a Parquet file"), "{error}");
    // Damaged pages: the row is named, whatever is wrong with them.
    let mut damaged = whole.clone();
    damaged[4..40].fill(0xff);
    std::fs::write(&path, damaged).unwrap();
    let error = read_records(open_records(&path).unwrap(), "f", ReadOptions::default());
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("f:1: ") && error.contains("damaged"),
        "{error}"
    );
}
