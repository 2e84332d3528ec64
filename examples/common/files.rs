//! Opening what is read and securing what is written, before any work is done.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use prefgrad::{Error, Result};
use tempfile::NamedTempFile;

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

/// Opens a text file, plain or compressed with gzip: its first bytes decide, not its name.
///
/// # Errors
///
/// [`Error::Io`] where the file cannot be read. A compressed file that is cut off fails where
/// the text is read, with [`std::io::ErrorKind::UnexpectedEof`].
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(io_error("cannot open", path))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf().map_err(io_error("cannot read", path))?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(reader))))
    } else {
        Ok(Box::new(reader))
    }
}

/// Makes the folder where it is missing, and writes a file into it that vanishes at once: a
/// folder that refuses files is noticed before hours of work.
///
/// # Errors
///
/// [`Error::Io`] naming the folder.
pub fn output_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(io_error("cannot make the output folder", path))?;
    tempfile::tempfile_in(path)
        .and_then(|mut probe| probe.write_all(b"x"))
        .map_err(io_error("cannot write into the output folder", path))
}

/// A file that appears under its name when it is complete, and not before.
///
/// It is written beside its place and renamed by [`commit`](Self::commit); dropped without that,
/// nothing is left of it and an older file of that name stays. A device or pipe (`/dev/stdout`)
/// is written to as it is.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    Temporary(BufWriter<NamedTempFile>),
    Special(BufWriter<File>),
}

impl OutputFile {
    /// Opens the file's folder for writing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder is missing or refuses files, or the path is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        let target = match std::fs::metadata(path) {
            Ok(found) if !found.is_file() => File::options()
                .write(true)
                .open(path)
                .map(|file| Target::Special(BufWriter::new(file))),
            _ => temporary_beside(path).map(|file| Target::Temporary(BufWriter::new(file))),
        }
        .map_err(io_error("cannot write", path))?;
        Ok(Self {
            path: path.to_owned(),
            target,
        })
    }

    /// Forces the content to disk and gives the file its name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], as on a full disk; then an older file of that name is still whole.
    pub fn commit(self) -> Result<()> {
        let failed = io_error("cannot write", &self.path);
        match self.target {
            Target::Special(mut writer) => writer.flush(),
            Target::Temporary(writer) => writer
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)
                .and_then(|file| {
                    file.as_file().sync_all()?;
                    file.persist(&self.path)?;
                    Ok(())
                }),
        }
        .map_err(failed)
    }
}

/// With the permissions that any new file gets: those of a temporary file are its owner's only.
fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

impl Write for OutputFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match &mut self.target {
            Target::Temporary(writer) => writer.write(buffer),
            Target::Special(writer) => writer.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.target {
            Target::Temporary(writer) => writer.flush(),
            Target::Special(writer) => writer.flush(),
        }
    }
}
