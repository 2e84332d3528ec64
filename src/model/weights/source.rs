//! Where weight files come from: a folder, or the caller's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{INDEX_FILE, MODEL_FILE, refused};
use crate::files::{FileBytes, io_error};
use crate::{Error, Result};

/// How to turn pickled weights into a safetensors file.
pub(super) const CONVERT: &str = "convert it where what it may do is harmless: \
    `AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other_folder)` in Python writes \
    model.safetensors";

/// A folder's files by name.
pub(super) enum Source {
    Folder {
        path: PathBuf,
        names: BTreeSet<String>,
    },
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Source {
    pub(super) fn folder(path: &Path) -> Result<Self> {
        let list = || -> std::io::Result<BTreeSet<String>> {
            let mut names = BTreeSet::new();
            for entry in std::fs::read_dir(path)? {
                // A name that is not Unicode is none of those looked for.
                names.extend(entry?.file_name().into_string().ok());
            }
            Ok(names)
        };
        Ok(Self::Folder {
            path: path.to_owned(),
            names: list().map_err(io_error("cannot list the model's folder", path))?,
        })
    }

    pub(super) fn memory(files: Vec<(String, Vec<u8>)>) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for (name, bytes) in files {
            if by_name.contains_key(&name) {
                return Err(refused(&name, "two files have this name".into()));
            }
            by_name.insert(name, bytes);
        }
        Ok(Self::Memory(by_name))
    }

    /// The folder in messages.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Folder { path, .. } => path.display().to_string(),
            Self::Memory(_) => "the weight files".into(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder { names, .. } => names.contains(name),
            Self::Memory(files) => files.contains_key(name),
        }
    }

    /// A file's name in messages and its content, once.
    pub(super) fn take(&mut self, name: &str) -> Result<(String, FileBytes)> {
        match self {
            Self::Folder { path, .. } => {
                let path = path.join(name);
                Ok((path.display().to_string(), FileBytes::map(&path)?))
            }
            Self::Memory(files) => {
                let bytes = files.remove(name).unwrap_or_default();
                Ok((name.to_owned(), FileBytes::Owned(bytes)))
            }
        }
    }

    /// What to say of a folder without weights that can be read.
    pub(super) fn no_weights(&self) -> Error {
        let names: Vec<&str> = match self {
            Self::Folder { names, .. } => names.iter().map(String::as_str).collect(),
            Self::Memory(files) => files.keys().map(String::as_str).collect(),
        };
        let pickles = || names.iter().filter(|name| is_pickle(name));
        let pickle = pickles()
            .find(|name| name.starts_with("pytorch_model"))
            .or_else(|| pickles().next());
        let config = match self.has("config.json") {
            true => "",
            false => ", and no config.json either: is it a model's folder?",
        };
        let detail = match pickle {
            Some(pickle) => format!(
                "it holds no {MODEL_FILE}, but `{pickle}`, a pickle, which can run any program when \
                 it is read and so is not: {CONVERT}"
            ),
            None => format!("it holds neither {MODEL_FILE} nor {INDEX_FILE}{config}"),
        };
        refused(&self.place(), detail)
    }
}

/// Whether a file has a name that PyTorch's pickled weights have.
fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"]
        .iter()
        .any(|end| name.ends_with(end))
}
