//! Input that cannot be used ends with a message that says where and what, and nothing half-written.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::run::{comparisons, fail, small_training, succeed};

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn refused(&self, bytes: &[u8], says: &[&str]) {
        let (data, out) = (self.path("data"), self.path("out"));
        std::fs::write(&data, bytes).unwrap();
        let error = fail("train_reward", &small_training(&data, &out));
        for word in says {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
        let model = self.folder.path().join("out").join("model.safetensors");
        assert!(!model.exists(), "nothing is left half-written");
    }
}

#[test]
fn a_file_that_is_not_utf_8() {
    Place::new().refused(b"{\"prompt\": \"\xff\xfe\"}\n", &["data:1", "UTF-8"]);
}

#[test]
fn no_usable_record() {
    Place::new().refused(b"{\"prompt\": \"a\"}\n", &["data"]);
}

#[test]
fn a_truncated_gzip() {
    let place = Place::new();
    let plain = place.path("plain");
    comparisons(plain.as_ref(), 400);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&std::fs::read(&plain).unwrap()).unwrap();
    let whole = encoder.finish().unwrap();
    place.refused(&whole[..whole.len() / 2], &["data"]);
}

#[test]
fn strict_stops_at_the_first_unusable_line() {
    let place = Place::new();
    let (data, out) = (place.path("data"), place.path("out"));
    comparisons(data.as_ref(), 40);
    let mut text = std::fs::read_to_string(&data).unwrap();
    text.insert_str(0, "{\"chosen\": \"x\"}\n");
    std::fs::write(&data, text).unwrap();
    let mut arguments = small_training(&data, &out);
    let printed = succeed("train_reward", &arguments);
    assert!(printed.contains("line 1 left out"), "{printed}");
    arguments.push("--strict");
    assert!(fail("train_reward", &arguments).contains("data:1"));
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    let place = Place::new();
    let (data, out) = (place.path("data"), place.path("file/out"));
    comparisons(data.as_ref(), 40);
    std::fs::write(place.path("file"), "in the way").unwrap();
    let error = fail("train_reward", &small_training(&data, &out));
    assert!(error.contains("out"), "{error}");
}

#[test]
fn sizes_that_do_not_agree() {
    let place = Place::new();
    let (data, out) = (place.path("data"), place.path("out"));
    comparisons(data.as_ref(), 40);
    let mut arguments = small_training(&data, &out);
    let heads = arguments.iter().position(|&a| a == "--heads").unwrap();
    arguments[heads + 1] = "3";
    let error = fail("train_reward", &arguments);
    assert!(error.contains("n_head"), "{error}");
}
