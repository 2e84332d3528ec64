//! Safetensors files written tensor by tensor.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::header::LENGTH_BYTES;
use super::refused;
use crate::Result;
use crate::files::AtomicFile;

/// Name and shape of an f32 tensor to be written.
pub(crate) struct TensorEntry {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl TensorEntry {
    pub(crate) fn bytes(&self) -> u64 {
        4 * self.shape.iter().map(|&dim| dim as u64).product::<u64>()
    }
}

/// A file of f32 tensors, whose values are handed over in the order of its entries and never held.
pub(crate) struct TensorWriter {
    file: AtomicFile,
    place: String,
    /// Bytes that are still to come.
    missing: u64,
}

impl TensorWriter {
    pub(crate) fn create<'a>(
        path: &Path,
        entries: impl IntoIterator<Item = &'a TensorEntry>,
    ) -> Result<Self> {
        let place = path.display().to_string();
        let mut end = 0;
        let infos = entries.into_iter().map(|entry| {
            let start = end;
            end += entry.bytes() as usize;
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: entry.shape.clone(),
                data_offsets: (start, end),
            };
            (entry.name.clone(), info)
        });
        // What `transformers` looks for to know the layout.
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(format), infos.collect())
            .map_err(|error| refused(&place, error.to_string()))?;
        let mut header =
            serde_json::to_vec(&metadata).map_err(|error| refused(&place, error.to_string()))?;
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        let mut file = AtomicFile::create(path)?;
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(&header)?;
        Ok(Self {
            file,
            place,
            missing: end as u64,
        })
    }

    /// Appends values.
    pub(crate) fn write(&mut self, values: &[f32]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.missing = (self.missing)
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| refused(&self.place, "more values than its tensors have".into()))?;
        self.file.write(bytes)
    }

    /// Forces the file to disk, where only its last name is missing.
    pub(crate) fn complete(mut self) -> Result<AtomicFile> {
        if self.missing > 0 {
            let detail = format!("{} bytes of its tensors were not written", self.missing);
            return Err(refused(&self.place, detail));
        }
        self.file.sync()?;
        Ok(self.file)
    }
}
