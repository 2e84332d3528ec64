mod bad_files;
mod good_files;
mod replacing;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{INDEX_FILE, MODEL_FILE, WeightFiles};
use crate::model::{Init, ParameterSpec};

type Files = Vec<(String, Vec<u8>)>;

/// A tensor's name, type, shape and bytes.
type Stored<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn f32s(name: &str, shape: [usize; 2], first: f32) -> Stored<'_> {
    let bytes = (0..shape[0] * shape[1])
        .flat_map(|i| (first + i as f32).to_le_bytes())
        .collect();
    (name, Dtype::F32, shape.to_vec(), bytes)
}

fn safetensors(tensors: &[Stored<'_>]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (*name, view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// A file of a header as text and its data.
fn raw(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn named(name: &str, bytes: impl Into<Vec<u8>>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.into())
}

fn model(bytes: impl Into<Vec<u8>>) -> Files {
    vec![named(MODEL_FILE, bytes)]
}

/// Shards `1.safetensors` and `2.safetensors` of one tensor each, and their index.
fn sharded() -> Files {
    let index = r#"{"metadata": {"total_size": 40}, "weight_map": {
        "transformer.a.weight": "1.safetensors", "transformer.b.weight": "2.safetensors"}}"#;
    vec![
        named(
            "1.safetensors",
            safetensors(&[f32s("transformer.a.weight", [2, 3], 0.0)]),
        ),
        named(
            "2.safetensors",
            safetensors(&[f32s("transformer.b.weight", [1, 4], 10.0)]),
        ),
        named(INDEX_FILE, index),
    ]
}

fn spec(name: &str, shape: [usize; 2]) -> ParameterSpec {
    ParameterSpec {
        name: name.into(),
        shape: shape.to_vec(),
        decay: true,
        init: Init::Zeros,
        stack: None,
    }
}

fn specs() -> Vec<ParameterSpec> {
    vec![
        spec("transformer.a.weight", [2, 3]),
        spec("transformer.b.weight", [1, 4]),
    ]
}

/// What opening these files says, from memory and from a folder; both mean the same.
fn refusal(files: Files) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let from_folder = WeightFiles::open(folder.path()).unwrap_err().to_string();
    let from_memory = WeightFiles::from_bytes(files).unwrap_err().to_string();
    let shown = |text: &str| text.split_once(": ").unwrap().1.to_owned();
    assert_eq!(shown(&from_folder), shown(&from_memory));
    from_memory
}

fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}
