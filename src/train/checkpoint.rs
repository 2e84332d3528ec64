//! Checkpoints: a folder that is there whole or not at all.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data::TokenRecord;
use crate::files::{io_error, sync_folder, write_atomically};
use crate::gpu::{Gpu, Tensor};
use crate::model::{Chunk, ParameterSpec, Parameters, TensorEntry, TensorWriter, WeightFiles};
use crate::{Error, Result};

const PREFIX: &str = "checkpoint-";
const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";

/// A chunk's tensor of one kind.
type Kind = fn(&Chunk) -> &Tensor;
/// Weights and moments by the prefix of their names.
const KINDS: [(&str, Kind); 3] = [
    ("weight.", |chunk| &chunk.weights),
    ("m.", |chunk| &chunk.m),
    ("v.", |chunk| &chunk.v),
];
const BEST: &str = "best.";

/// The newest complete checkpoint in a folder, if there is one.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read.
pub fn newest(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(all(folder)?.pop().map(|(_, path)| path))
}

/// Complete checkpoints, oldest first.
fn all(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io_error("cannot list", folder))? {
        let entry = entry.map_err(io_error("cannot list", folder))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Writes `folder/checkpoint-<updates>` and removes older ones once it is on disk.
///
/// `best` holds the best weights so far, one `Vec` a chunk.
pub(super) fn save(
    folder: &Path,
    updates: u64,
    gpu: &Gpu,
    parameters: &Parameters,
    best: Option<&[Vec<f32>]>,
    state: &impl Serialize,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(io_error("cannot make", folder))?;
    let partial = folder.join(format!(".{PREFIX}{updates}.partial"));
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(io_error("cannot remove", &partial))?;
    }
    std::fs::create_dir(&partial).map_err(io_error("cannot make", &partial))?;
    write_tensors(&partial.join(TENSORS), gpu, parameters, best)?;
    let json = serde_json::to_string_pretty(state).map_err(|error| Error::Checkpoint {
        path: partial.clone(),
        detail: error.to_string(),
    })?;
    write_atomically(&partial.join(STATE), json.as_bytes())?;
    let done = folder.join(format!("{PREFIX}{updates}"));
    if done.exists() {
        std::fs::remove_dir_all(&done).map_err(io_error("cannot replace", &done))?;
    }
    std::fs::rename(&partial, &done).map_err(io_error("cannot finish", &done))?;
    sync_folder(Some(folder))?;
    for (number, old) in all(folder)? {
        if number < updates {
            std::fs::remove_dir_all(&old).map_err(io_error("cannot remove", &old))?;
        }
    }
    Ok(())
}

/// Writes weights, moments and best weights, one kind after the other through the host.
fn write_tensors(
    path: &Path,
    gpu: &Gpu,
    parameters: &Parameters,
    best: Option<&[Vec<f32>]>,
) -> Result<()> {
    let prefixes = KINDS.iter().map(|(prefix, _)| *prefix);
    let entries: Vec<TensorEntry> = prefixes
        .chain(best.map(|_| BEST))
        .flat_map(|prefix| parameters.specs().iter().map(move |spec| (prefix, spec)))
        .map(|(prefix, spec)| TensorEntry {
            name: format!("{prefix}{}", spec.name),
            shape: spec.shape.clone(),
        })
        .collect();
    let mut file = TensorWriter::create(path, &entries)?;
    let mut write = |buffers: &[Vec<f32>]| -> Result<()> {
        for spec in parameters.specs() {
            for values in parameters.pieces(&spec.name, buffers)? {
                file.write(values)?;
            }
        }
        Ok(())
    };
    for (_, kind) in KINDS {
        write(&parameters.read(gpu, kind)?)?;
    }
    if let Some(buffers) = best {
        write(buffers)?;
    }
    file.complete()?.finish()
}

/// Reads the state of a checkpoint.
pub(super) fn read_state<T: DeserializeOwned>(checkpoint: &Path) -> Result<T> {
    let path = checkpoint.join(STATE);
    let text = std::fs::read_to_string(&path).map_err(io_error("cannot read", &path))?;
    serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
        path: checkpoint.to_owned(),
        detail: format!("{STATE}: {error}"),
    })
}

/// Restores weights and moments; gives back the best weights, one `Vec` a chunk, if there are any.
pub(super) fn restore(
    checkpoint: &Path,
    gpu: &Gpu,
    parameters: &Parameters,
) -> Result<Option<Vec<Vec<f32>>>> {
    let path = checkpoint.join(TENSORS);
    let refuse = |detail: String| Error::Checkpoint {
        path: checkpoint.to_owned(),
        detail,
    };
    let file = WeightFiles::open_file(&path).map_err(|error| refuse(error.to_string()))?;
    let values = |name: &str, spec: &ParameterSpec| {
        let tensor = file
            .get(name)
            .ok_or_else(|| refuse(format!("{TENSORS}: it has no `{name}`")))?;
        if tensor.shape != spec.shape {
            return Err(refuse(format!(
                "`{name}` is {:?}, expected {:?}",
                tensor.shape, spec.shape
            )));
        }
        tensor.values().map_err(|error| refuse(error.to_string()))
    };
    for (prefix, kind) in KINDS {
        for spec in parameters.specs() {
            let values = values(&format!("{prefix}{}", spec.name), spec)?;
            parameters.write_kind(gpu, &spec.name, kind, &values)?;
        }
        gpu.flush_writes()?;
    }
    if !file.tensors().any(|tensor| tensor.name.starts_with(BEST)) {
        return Ok(None);
    }
    let mut best: Vec<Vec<f32>> = parameters
        .chunks()
        .iter()
        .map(|c| vec![0.0; c.weights.len()])
        .collect();
    for spec in parameters.specs() {
        let values = values(&format!("{BEST}{}", spec.name), spec)?;
        parameters.place(&spec.name, &values, &mut best)?;
    }
    Ok(Some(best))
}

/// A hash of all token ids (FNV-1a), the same on every machine.
pub(super) fn fingerprint(records: &[TokenRecord]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |value: u32| {
        for byte in value.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for record in records {
        add(record.prompt.len() as u32);
        record.prompt.iter().for_each(|&token| add(token));
        for answer in &record.answers {
            add(answer.len() as u32);
            answer.iter().for_each(|&token| add(token));
        }
    }
    hash
}
