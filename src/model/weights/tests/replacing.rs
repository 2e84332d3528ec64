//! Saves over earlier saves, interrupted after each of their steps.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::model::weights::replace::{Replacement, SavedTensor};
use crate::model::weights::writer::TensorEntry;

/// How a test saves a model whose values are all the same.
#[derive(Clone, Copy, Debug)]
struct Save {
    value: f32,
    max_shard_bytes: u64,
    with_value_head: bool,
    config: &'static str,
}

const NAMES: [&str; 3] = [
    "transformer.a.weight",
    "transformer.b.weight",
    "transformer.c.weight",
];

impl Save {
    /// Runs the first steps; five are all of them.
    fn run(self, folder: &Path, steps: usize) {
        let values = [self.value; 16];
        let tensor = |name: &str| SavedTensor {
            entry: TensorEntry {
                name: name.into(),
                shape: vec![4, 4],
            },
            values: vec![&values[..12], &values[12..]],
        };
        let replacement = Replacement {
            folder,
            model: NAMES.map(tensor).into(),
            value_head: self
                .with_value_head
                .then(|| tensor("value_head.weight"))
                .into_iter()
                .collect(),
            config: self.config.into(),
            generation: None,
            max_shard_bytes: self.max_shard_bytes,
        };
        if steps == 0 {
            return;
        }
        let staged = replacement.stage().unwrap();
        if steps >= 2 {
            replacement.make_way().unwrap();
        }
        if steps >= 3 {
            let shards = replacement.commit(staged).unwrap();
            if steps >= 4 {
                replacement.clear(&shards).unwrap();
            }
        }
        if steps >= 5 {
            replacement.complete().unwrap();
        }
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The one value that all tensors of the folder have, and whether there is a value head.
fn read(folder: &Path) -> (f32, bool) {
    let files = WeightFiles::open(folder).unwrap();
    let mut values: Vec<f32> = files
        .tensors()
        .flat_map(|tensor| tensor.values().unwrap())
        .collect();
    let head = files.get("value_head.weight").is_some();
    assert_eq!(values.len(), 16 * (3 + usize::from(head)));
    values.dedup();
    assert_eq!(values.len(), 1, "weights of two saves: {values:?}");
    (values[0], head)
}

/// A save into one file, into two and into three.
fn saves(with_value_head: bool, config: &'static str) -> [Save; 3] {
    [1000, 128, 10].map(|max_shard_bytes| Save {
        value: 1.0,
        max_shard_bytes,
        with_value_head,
        config,
    })
}

/// Does a part of the second save over the first, and looks at what the folder then has.
fn interrupt(old: Save, new: Save, steps: usize) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    old.run(folder, 5);
    new.run(folder, steps);
    let (value, head) = read(folder);
    let save = if steps < 3 { old } else { new };
    assert_eq!(value, save.value, "{old:?} {new:?} {steps}");
    assert!(save.with_value_head || !head, "{old:?} {new:?} {steps}");
    let config = std::fs::read_to_string(folder.join("config.json"));
    assert!(config.is_ok_and(|text| text == save.config) || (2..5).contains(&steps));

    let last = Save { value: 3.0, ..old };
    last.run(folder, 5);
    assert_eq!(read(folder), (3.0, last.with_value_head));
    let weights = match last.max_shard_bytes {
        1000 => 1,
        128 => 2 + 1,
        _ => 3 + 1,
    };
    let expected = 1 + weights + usize::from(last.with_value_head);
    assert_eq!(names(folder).len(), expected, "{:?}", names(folder));
}

#[test]
fn an_interrupted_save_leaves_old_or_new_weights_and_the_next_one_cleans_up() {
    for old in saves(true, "{}") {
        for new in [saves(true, "{}"), saves(false, "{\"other\": 1}")].concat() {
            for steps in 1..5 {
                interrupt(old, Save { value: 2.0, ..new }, steps);
            }
        }
    }
}

#[test]
fn a_save_keeps_files_that_are_none_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mine = [
        "pytorch_model.bin",
        "model-best.safetensors",
        "model-1.safetensors",
        "model-a-of-2.safetensors",
    ];
    for name in mine {
        std::fs::write(folder.join(name), "mine").unwrap();
    }
    std::fs::write(folder.join("model-00007-of-00009.safetensors"), "stale").unwrap();
    std::fs::write(
        folder.join("model-00001-of-00009.safetensors.partial"),
        "stale",
    )
    .unwrap();
    for max_shard_bytes in [128, 1000] {
        Save {
            max_shard_bytes,
            ..saves(false, "{}")[0]
        }
        .run(folder, 5);
        let kept = names(folder);
        assert!(mine.iter().all(|name| kept.contains(*name)), "{kept:?}");
        assert!(!kept.iter().any(|name| name.contains("00009")), "{kept:?}");
    }
}

#[test]
fn shards_have_the_names_and_the_index_that_transformers_gives_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    saves(false, "{}")[1].run(folder, 5);
    let expected = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX_FILE,
    ];
    assert_eq!(names(folder), expected.map(String::from).into());
    let text = std::fs::read_to_string(folder.join(INDEX_FILE)).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        index,
        serde_json::json!({
            "metadata": {"total_parameters": 48, "total_size": 192},
            "weight_map": {
                "transformer.a.weight": "model-00001-of-00002.safetensors",
                "transformer.b.weight": "model-00001-of-00002.safetensors",
                "transformer.c.weight": "model-00002-of-00002.safetensors",
            },
        })
    );
    for name in &expected[1..3] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert!(u64::from_le_bytes(bytes[..8].try_into().unwrap()).is_multiple_of(8));
    }
}
