//! Running an example that cargo built beside this test.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program of an example.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/<profile>/deps/<test>");
    let path = profile
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{}: `cargo test` builds the examples",
        path.display()
    );
    path
}

/// An example with arguments.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments);
    command
}

/// Runs an example that must succeed; its standard output.
pub fn succeed(name: &str, arguments: &[&str]) -> String {
    let output = command(name, arguments).output().unwrap();
    let (out, err) = texts(&output);
    assert!(
        output.status.success(),
        "{name} {arguments:?}\n{out}\n{err}"
    );
    out
}

/// Runs an example that must fail without a panic; its standard error.
pub fn fail(name: &str, arguments: &[&str]) -> String {
    let output = command(name, arguments).output().unwrap();
    let (out, err) = texts(&output);
    assert!(
        !output.status.success(),
        "{name} {arguments:?} succeeded\n{out}"
    );
    assert!(!err.contains("panicked"), "{err}");
    err
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A file of comparisons: answers that name the colour asked for are preferred.
pub fn comparisons(path: &Path, count: usize) {
    let colours = ["red", "green", "blue", "white"];
    let mut text = String::new();
    for i in 0..count {
        let (asked, other) = (colours[i % 4], colours[(i + 1 + i / 4 % 3) % 4]);
        let _ = writeln!(
            text,
            r#"{{"prompt": "Item {i}: {asked}? ", "chosen": "Here is {asked}.", "rejected": "Have {other}."}}"#
        );
    }
    std::fs::write(path, text).unwrap();
}

/// Arguments of a training run that takes seconds.
pub fn small_training<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    vec![
        "--data",
        data,
        "--out",
        out,
        "--layers",
        "1",
        "--width",
        "16",
        "--heads",
        "2",
        "--context",
        "64",
        "--batch-tokens",
        "256",
        "--pretrain-steps",
        "4",
        "--steps",
        "40",
        "--evaluate-every",
        "5",
        "--checkpoint-every",
        "3",
        "--seed",
        "3",
    ]
}
