//! [`WeightFiles`]: the tensors in a model's weight files.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::header::read_header;
use super::index::{read_index, shard_names};
use super::source::Source;
use super::tensor::StoredTensor;
use super::{INDEX_FILE, MODEL_FILE, VALUE_HEAD_FILE, refused};
use crate::Result;
use crate::files::FileBytes;

/// The tensors in a model's weight files: host only, nothing is read but headers.
///
/// A model is `model.safetensors`, or `model.safetensors.index.json` with the files it names; where
/// there are both the first counts, as for `transformers`. `value_head.safetensors` beside them
/// holds a value head.
pub struct WeightFiles {
    /// The folder, for messages.
    place: String,
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, Location>,
}

struct WeightFile {
    /// The name in its folder.
    name: String,
    /// The name in messages.
    place: String,
    bytes: FileBytes,
}

/// Where a tensor is.
struct Location {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl WeightFiles {
    /// Opens the weight files of a model's folder. They are mapped: leave them in place meanwhile,
    /// a file that is cut off while it is read ends the process.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io); [`Error::Model`](crate::Error::Model) names the file, and
    /// the tensor where it is about one: no weights or only pickled ones, a shard that is missing
    /// or named with a path, an index and shards that do not agree, a file that is cut off or whose
    /// header is wrong, a Git LFS pointer.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::gather(Source::folder(folder)?)
    }

    /// The same from files in memory, each with its name: for browsers, and hosts that have them
    /// from elsewhere.
    ///
    /// # Errors
    ///
    /// As [`WeightFiles::open`], and for two files of one name.
    pub fn from_bytes(files: Vec<(String, Vec<u8>)>) -> Result<Self> {
        Self::gather(Source::memory(files)?)
    }

    /// Opens one file, which need not be a model's.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn open_file(path: &Path) -> Result<Self> {
        let mut files = Self::empty(path.display().to_string());
        let bytes = FileBytes::map(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.add(name.into_owned(), path.display().to_string(), bytes)?;
        Ok(files)
    }

    fn empty(place: String) -> Self {
        Self {
            place,
            files: Vec::new(),
            tensors: BTreeMap::new(),
        }
    }

    fn gather(mut source: Source) -> Result<Self> {
        let mut files = Self::empty(source.place());
        if source.has(MODEL_FILE) {
            files.add_from(&mut source, MODEL_FILE)?;
        } else if source.has(INDEX_FILE) {
            files.add_shards(&mut source)?;
        } else {
            return Err(source.no_weights());
        }
        if source.has(VALUE_HEAD_FILE) {
            files.add_from(&mut source, VALUE_HEAD_FILE)?;
        }
        Ok(files)
    }

    fn add_from(&mut self, source: &mut Source, name: &str) -> Result<()> {
        let (place, bytes) = source.take(name)?;
        self.add(name.to_owned(), place, bytes)
    }

    fn add(&mut self, name: String, place: String, bytes: FileBytes) -> Result<()> {
        let file = self.files.len();
        for (tensor, info, bytes) in read_header(&place, &bytes)? {
            if let Some(first) = self.tensors.get(&tensor) {
                let other = &self.files[first.file].name;
                return Err(refused(&place, format!("`{tensor}` is in `{other}` too")));
            }
            let location = Location {
                file,
                dtype: info.dtype,
                shape: info.shape,
                bytes,
            };
            self.tensors.insert(tensor, location);
        }
        self.files.push(WeightFile { name, place, bytes });
        Ok(())
    }

    fn add_shards(&mut self, source: &mut Source) -> Result<()> {
        let (place, bytes) = source.take(INDEX_FILE)?;
        let index = read_index(&place, &bytes)?;
        for shard in shard_names(&place, &index)? {
            if !source.has(shard) {
                return Err(refused(
                    &place,
                    format!("`{shard}`, which it names, is not there: download it as well"),
                ));
            }
            self.add_from(source, shard)?;
        }
        for (tensor, shard) in &index {
            let found = self.tensors.get(tensor);
            if found.is_none_or(|at| self.files[at.file].name != *shard) {
                return Err(refused(
                    &place,
                    format!("`{shard}` does not hold `{tensor}`, as the index says: {MIXED}"),
                ));
            }
        }
        let listed: BTreeSet<&String> = index.keys().collect();
        match self.tensors.iter().find(|(name, _)| !listed.contains(name)) {
            None => Ok(()),
            Some((name, at)) => Err(refused(
                &self.files[at.file].place,
                format!("`{name}` is not in the index: {MIXED}"),
            )),
        }
    }

    /// The folder, as messages name it.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = StoredTensor<'_>> {
        self.tensors.iter().map(|(name, at)| self.stored(name, at))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (name, at) = self.tensors.get_key_value(name)?;
        Some(self.stored(name, at))
    }

    fn stored<'a>(&'a self, name: &'a str, at: &'a Location) -> StoredTensor<'a> {
        let file = &self.files[at.file];
        StoredTensor {
            name,
            dtype: at.dtype,
            shape: &at.shape,
            file: &file.place,
            bytes: &file.bytes[at.bytes.clone()],
        }
    }

    /// Takes what was read so far out of memory.
    pub(super) fn release(&self) {
        for file in &self.files {
            file.bytes.release();
        }
    }
}

const MIXED: &str = "the files are not of one model, download them again";

impl std::fmt::Debug for WeightFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<&str> = self.files.iter().map(|file| file.place.as_str()).collect();
        f.debug_struct("WeightFiles")
            .field("files", &files)
            .field("tensors", &self.tensors.len())
            .finish()
    }
}
