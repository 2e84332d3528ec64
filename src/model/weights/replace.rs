//! A model's files in place of those that a folder had before.
//!
//! Readers take `model.safetensors` where it is there, else the files that the index names. So one
//! rename or removal decides which weights a folder has, and the new ones are whole by then.

use std::collections::BTreeSet;
use std::path::Path;

use super::index::{Index, index_json};
use super::writer::{TensorEntry, TensorWriter};
use super::{INDEX_FILE, MODEL_FILE, VALUE_HEAD_FILE};
use crate::Result;
use crate::files::{AtomicFile, io_error, remove_if_there, sync_folder, write_atomically};

const CONFIG_FILE: &str = "config.json";
const GENERATION_FILE: &str = "generation_config.json";

/// A tensor and its values, in one slice or several.
pub(super) struct SavedTensor<'a> {
    pub(super) entry: TensorEntry,
    pub(super) values: Vec<&'a [f32]>,
}

/// What a folder is to hold.
pub(super) struct Replacement<'a> {
    pub(super) folder: &'a Path,
    pub(super) model: Vec<SavedTensor<'a>>,
    /// Empty for a model without one.
    pub(super) value_head: Vec<SavedTensor<'a>>,
    /// `config.json`.
    pub(super) config: String,
    /// `generation_config.json`.
    pub(super) generation: Option<String>,
    pub(super) max_shard_bytes: u64,
}

/// New weights that are on disk and not yet those of the folder.
pub(super) enum Staged {
    One(AtomicFile),
    Shards(Index),
}

impl Replacement<'_> {
    pub(super) fn run(&self) -> Result<()> {
        let staged = self.stage()?;
        self.make_way()?;
        let shards = self.commit(staged)?;
        self.clear(&shards)?;
        self.complete()
    }

    /// Writes the new weights beside the old ones.
    pub(super) fn stage(&self) -> Result<Staged> {
        let shards = self.shards();
        if shards.len() <= 1 {
            return write(&self.folder.join(MODEL_FILE), &self.model).map(Staged::One);
        }
        let names = fresh_names(&names_in(self.folder)?, shards.len());
        let mut index = Index::new();
        for (name, tensors) in names.iter().zip(shards) {
            write(&self.folder.join(name), tensors)?.finish()?;
            index.extend(tensors.iter().map(|t| (t.entry.name.clone(), name.clone())));
        }
        Ok(Staged::Shards(index))
    }

    /// Tensors that go into one file, in order.
    fn shards(&self) -> Vec<&[SavedTensor<'_>]> {
        let (mut shards, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (i, tensor) in self.model.iter().enumerate() {
            let more = tensor.entry.bytes();
            if i > start && bytes + more > self.max_shard_bytes {
                shards.push(&self.model[start..i]);
                (start, bytes) = (i, 0);
            }
            bytes += more;
        }
        shards.push(&self.model[start..]);
        shards
    }

    /// Removes what would be read together with the new weights and does not belong to them.
    pub(super) fn make_way(&self) -> Result<()> {
        remove_if_there(&self.folder.join(VALUE_HEAD_FILE))?;
        for (name, new) in [
            (CONFIG_FILE, Some(&self.config)),
            (GENERATION_FILE, self.generation.as_ref()),
        ] {
            let path = self.folder.join(name);
            let old = std::fs::read(&path).ok();
            if old.is_some_and(|old| new.is_none_or(|new| old != new.as_bytes())) {
                remove_if_there(&path)?;
            }
        }
        sync_folder(Some(self.folder))
    }

    /// Makes the new weights those of the folder; gives back the names of their shards.
    pub(super) fn commit(&self, staged: Staged) -> Result<BTreeSet<String>> {
        match staged {
            Staged::One(file) => {
                file.finish()?;
                Ok(BTreeSet::new())
            }
            Staged::Shards(index) => {
                let entries = self.model.iter().map(|tensor| &tensor.entry);
                let json = index_json(entries, &index);
                write_atomically(&self.folder.join(INDEX_FILE), json.as_bytes())?;
                remove_if_there(&self.folder.join(MODEL_FILE))?;
                sync_folder(Some(self.folder))?;
                Ok(index.into_values().collect())
            }
        }
    }

    /// Removes files of earlier saves.
    pub(super) fn clear(&self, shards: &BTreeSet<String>) -> Result<()> {
        if shards.is_empty() {
            remove_if_there(&self.folder.join(INDEX_FILE))?;
        }
        for name in names_in(self.folder)? {
            let stem = name.strip_suffix(".partial").unwrap_or(&name);
            if is_shard(stem) && !shards.contains(&name) {
                remove_if_there(&self.folder.join(&name))?;
            }
        }
        Ok(())
    }

    /// Writes what goes with the new weights.
    pub(super) fn complete(&self) -> Result<()> {
        if !self.value_head.is_empty() {
            write(&self.folder.join(VALUE_HEAD_FILE), &self.value_head)?.finish()?;
        }
        if let Some(generation) = &self.generation {
            let path = self.folder.join(GENERATION_FILE);
            write_atomically(&path, generation.as_bytes())?;
        }
        write_atomically(&self.folder.join(CONFIG_FILE), self.config.as_bytes())
    }
}

fn write(path: &Path, tensors: &[SavedTensor<'_>]) -> Result<AtomicFile> {
    let mut file = TensorWriter::create(path, tensors.iter().map(|tensor| &tensor.entry))?;
    for slice in tensors.iter().flat_map(|tensor| &tensor.values) {
        file.write(slice)?;
    }
    file.complete()
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io_error("cannot list", folder))? {
        let entry = entry.map_err(io_error("cannot list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

/// Names of shards of which the folder has none yet: an index that is still in force may name
/// those of an earlier save.
fn fresh_names(taken: &BTreeSet<String>, count: usize) -> Vec<String> {
    let names = |round: usize| -> Vec<String> {
        let round = match round {
            1 => String::new(),
            n => format!("-{n}"),
        };
        (1..=count)
            .map(|i| format!("model{round}-{i:05}-of-{count:05}.safetensors"))
            .collect()
    };
    let mut round = 1;
    while names(round).iter().any(|name| taken.contains(name)) {
        round += 1;
    }
    names(round)
}

/// Whether a file is called as shards are: `model-00001-of-00002.safetensors`, or with a number
/// behind `model`.
fn is_shard(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(middle) = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
    else {
        return false;
    };
    let Some((first, count)) = middle.split_once("-of-") else {
        return false;
    };
    number(count) && first.split('-').all(number) && first.split('-').count() <= 2
}
