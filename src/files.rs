//! Files read as slices, and written whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// A file's content: mapped, or in memory.
pub(crate) enum FileBytes {
    Owned(Vec<u8>),
    #[cfg(not(target_arch = "wasm32"))]
    Mapped(memmap2::Mmap),
}

impl FileBytes {
    /// Maps a file for reading.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error("cannot read", path))?;
        // SAFETY: the map is only read, and what is read of it is checked as any input is. A file
        // that another process changes meanwhile gives other bytes, one that it cuts off ends this
        // process with a signal; the crate's own writers replace files and leave mapped ones alone.
        let map = unsafe { memmap2::Mmap::map(&file) };
        map.map(Self::Mapped).map_err(io_error("cannot map", path))
    }

    /// Reads a file: browsers have no maps, and no files either.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn map(path: &Path) -> Result<Self> {
        std::fs::read(path)
            .map(Self::Owned)
            .map_err(io_error("cannot read", path))
    }

    /// Takes the pages that were read out of the process; they come back when they are read again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is shared and read-only, so that a page taken out is read anew from
            // the file and no content is lost.
            let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            if let Err(error) = advised {
                log::debug!("pages of a weight file stay in memory: {error}");
            }
        }
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            #[cfg(not(target_arch = "wasm32"))]
            Self::Mapped(map) => map,
        }
    }
}

/// A file that is written beside its place, forced to disk and then renamed: a reader or a crash
/// sees the old content or the new, never a part. Dropped unfinished, it leaves nothing.
pub(crate) struct AtomicFile {
    writer: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(io_error("cannot write", &partial))?;
        Ok(Self {
            writer: BufWriter::with_capacity(1 << 20, file),
            partial,
            path: path.to_owned(),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.writer.write_all(bytes);
        written.map_err(io_error("cannot write", &self.partial))
    }

    /// Forces to disk what was written; only the rename is left.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let synced = self
            .writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all());
        synced.map_err(io_error("cannot write", &self.partial))
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        self.sync()?;
        std::fs::rename(&self.partial, &self.path)
            .map_err(io_error("cannot replace", &self.path))?;
        sync_folder(self.path.parent())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After `finish` there is no such file, and before it an error is on its way already.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// A rename is only on disk once its folder is; systems without folder handles do that alone.
pub(crate) fn sync_folder(folder: Option<&Path>) -> Result<()> {
    #[cfg(unix)]
    if let Some(folder) = folder.filter(|f| !f.as_os_str().is_empty()) {
        let sync = || File::open(folder)?.sync_all();
        sync().map_err(io_error("cannot sync", folder))?;
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

/// Removes a file that may be there.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_leaves_the_old_one_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"one").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write(b"tw").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("a.json");
        let error = write_atomically(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }

    #[test]
    fn a_map_is_the_files_content_also_after_its_pages_were_released() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = FileBytes::map(&path).unwrap();
        assert_eq!(map[..], bytes[..]);
        map.release();
        assert_eq!(map[..], bytes[..]);
        let empty = folder.path().join("empty.bin");
        std::fs::write(&empty, b"").unwrap();
        assert!(FileBytes::map(&empty).unwrap().is_empty());
    }
}
