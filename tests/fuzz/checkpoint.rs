//! Any bytes as the files of a model's folder: an error, or tensors that lie inside their files and
//! agree with what the safetensors crate reads. Memory stays in proportion to the input.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libfuzzer_sys::fuzz_target;
use prefgrad::model::{ModelConfig, Head, Init, ParameterSpec, WeightFiles, model_parameters};
use safetensors::SafeTensors;

/// What a byte of input may take at most: an empty JSON list in a list is two bytes, and a value of
/// the parser's with its share of a growing vector about a hundred.
const BYTES_PER_BYTE: usize = 200;
const FIXED_BYTES: usize = 64 << 10;

/// The system's allocator, which counts.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NAMES: [&str; 7] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "1.safetensors",
    "2.safetensors",
    "value_head.safetensors",
    "pytorch_model.bin",
    "config.json",
];

fuzz_target!(|data: &[u8]| {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let files = split(data);
    if let Some((_, config)) = files.iter().find(|(name, _)| name == "config.json") {
        read_config(config);
    }
    let alone = match files.as_slice() {
        [(name, bytes)] if name == NAMES[0] => Some(bytes.clone()),
        _ => None,
    };
    if let Ok(files) = WeightFiles::from_bytes(files) {
        read(&files, alone.as_deref());
    }
    let used = PEAK.load(Relaxed) - before;
    let allowed = FIXED_BYTES + BYTES_PER_BYTE * data.len();
    assert!(used <= allowed, "{used} bytes for {} of input", data.len());
});

/// A byte that names a file, two of its length, its content, and so on; a last file takes the rest.
fn split(mut data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    while let [name, low, high, rest @ ..] = data {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, later) = rest.split_at(len);
        let name = NAMES[usize::from(*name) % NAMES.len()];
        files.push((name.to_owned(), bytes.to_vec()));
        data = later;
    }
    files
}

fn read_config(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else {
        return;
    };
    let Ok(config) = ModelConfig::from_json(&json, "config.json") else {
        return;
    };
    assert!(config.num_attention_heads.is_multiple_of(config.num_key_value_heads));
    if config.num_hidden_layers < 4 {
        model_parameters(&config, &[Head::Score, Head::Language, Head::Value]);
    }
}

fn read(files: &WeightFiles, alone: Option<&[u8]>) {
    let specs = [("transformer.a.weight", [2, 3]), ("score.weight", [1, 4])].map(|(name, shape)| {
        ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
            decay: true,
            init: Init::Zeros,
            stack: None,
        }
    });
    if let Ok(assigned) = files.assign(&specs) {
        for (spec, tensor) in specs.iter().zip(&assigned) {
            assert!(tensor.is_none_or(|t| t.is_readable() && t.shape == spec.shape));
        }
    }
    let theirs = alone.map(|bytes| SafeTensors::deserialize(bytes).expect("as we accept it"));
    for tensor in files.tensors() {
        let len: usize = tensor.shape.iter().product();
        let mut read = 0;
        let whole = tensor.pieces(|first, values| {
            assert_eq!(first, read);
            read += values.len();
            Ok(())
        });
        assert!(whole.is_err() || read == len);
        if let Some(theirs) = &theirs {
            let their = theirs.tensor(tensor.name).expect("the same names");
            assert_eq!((their.shape(), their.data()), (tensor.shape, tensor.bytes));
        }
    }
}
