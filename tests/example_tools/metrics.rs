//! `metrics.jsonl` and TensorBoard's event files.

use std::io::Write;
use std::path::Path;

use example_tools::metrics::Metrics;

fn steps(folder: &Path) -> Vec<(u64, serde_json::Value)> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            (object["step"].as_u64().unwrap(), object["loss"].clone())
        })
        .collect()
}

#[test]
fn each_step_is_on_disk_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Metrics::create(folder.path()).unwrap();
    metrics.record(1, &[("loss", 0.5), ("lr", 1e-3)]).unwrap();
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(text, "{\"step\":1,\"loss\":0.5,\"lr\":0.001}\n");
    metrics.record(2, &[("loss", f64::NAN)]).unwrap();
    assert_eq!(steps(folder.path())[1], (2, serde_json::Value::Null));
}

#[test]
fn a_resumed_run_records_no_step_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut metrics = Metrics::create(folder.path()).unwrap();
    for step in 1..=5 {
        metrics.record(step, &[("loss", step as f64)]).unwrap();
    }
    drop(metrics);
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    file.write_all(b"{\"step\":6,\"lo").unwrap();

    let mut metrics = Metrics::resume(folder.path(), 3).unwrap();
    metrics.record(4, &[("loss", 40.0)]).unwrap();
    let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)];
    assert_eq!(steps(folder.path()), expected.map(|(s, l)| (s, l.into())));

    drop(Metrics::create(folder.path()).unwrap());
    assert!(steps(folder.path()).is_empty());
}

/// The fields of the records in an event file, each record checked: length, both checksums.
fn events(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let masked = |data: &[u8]| {
        let sum = bitwise_crc32c(data);
        sum.rotate_right(15).wrapping_add(0xa282ead8).to_le_bytes()
    };
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked(&rest[..8]));
        let event = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked(event));
        events.push(event.to_vec());
        rest = &rest[16 + length..];
    }
    events
}

/// CRC-32C by its definition, a bit at a time.
fn bitwise_crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f63b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn event_files_hold_the_scalars_and_a_new_one_is_made_each_run() {
    assert_eq!(bitwise_crc32c(b"123456789"), 0xe3069283);
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Metrics::create(folder.path()).unwrap();
    metrics.record(300, &[("loss", 0.5)]).unwrap();
    drop(metrics);
    drop(Metrics::resume(folder.path(), 300).unwrap());
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("tfevents"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 2);

    // After the nine bytes of the time: step 300, a summary with a value of tag and number.
    let first = events(&files[0]);
    assert_eq!(first.len(), 3);
    assert_eq!(first[0][9..], *b"\x1a\x0dbrain.Event:2");
    let mut expected = b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15".to_vec();
    expected.extend(0.5f32.to_le_bytes());
    assert_eq!(first[2][9..], expected);
    // The second file starts at step 301 with `SessionLog { status: START }`.
    let second = events(&files[1]);
    assert_eq!(second[1][9..], *b"\x10\xad\x02\x3a\x02\x08\x01");
}
