//! What is read and what is written, whole, cut off or out of reach.

use std::io::{Read, Write};
use std::path::Path;

use example_tools::files::{OutputFile, open_text, output_folder};
use prefgrad::Error;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    open_text(path).unwrap().read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn compression_is_told_by_content_not_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, "plain\n").unwrap();
    assert_eq!(read(&path).unwrap(), "plain\n");
    // Files that were compressed one by one and joined are one file.
    std::fs::write(&path, [gzip("one\n"), gzip("two\n")].concat()).unwrap();
    assert_eq!(read(&path).unwrap(), "one\ntwo\n");
    std::fs::write(&path, "").unwrap();
    assert_eq!(read(&path).unwrap(), "");
}

#[test]
fn a_compressed_file_that_is_cut_off_does_not_pass_for_a_short_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.gz");
    let whole = gzip(&"a line of text\n".repeat(1000));
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let error = read(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn missing_files_and_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("nowhere.jsonl"), folder.path().into()] {
        let Err(Error::Io { path: named, .. }) = open_text(&path) else {
            panic!("opened {}", path.display());
        };
        assert_eq!(named, path);
    }
}

#[test]
fn an_output_folder_is_made_and_left_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/first");
    output_folder(&path).unwrap();
    output_folder(&path).unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn an_output_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/below".into()] {
        let error = output_folder(&path).unwrap_err();
        assert!(matches!(error, Error::Io { .. }));
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn an_output_file_appears_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.jsonl");
    let mut output = OutputFile::create(&path).unwrap();
    writeln!(output, "one").unwrap();
    output.flush().unwrap();
    assert!(!path.exists());
    output.commit().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");

    let mut abandoned = OutputFile::create(&path).unwrap();
    writeln!(abandoned, "two").unwrap();
    drop(abandoned);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_output_file_has_a_place() {
    let folder = tempfile::tempdir().unwrap();
    assert!(OutputFile::create(folder.path()).is_err());
    let error = OutputFile::create(&folder.path().join("no/x")).unwrap_err();
    assert!(error.to_string().contains("no/x"), "{error}");
}

/// Through a link of its own: whatever goes wrong here, the system's device is not replaced.
#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_stays() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device");
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    let mut output = OutputFile::create(&path).unwrap();
    writeln!(output, "gone").unwrap();
    output.commit().unwrap();
    let kind = std::fs::metadata(&path).unwrap().file_type();
    assert!(kind.is_char_device());
}
