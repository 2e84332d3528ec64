//! The tools that the examples share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod baselines;
mod chat;
mod files;
mod metrics;
mod pictures;
mod progress;
mod prompts;
mod records;
mod statistics;
mod tokenizer;

use std::path::{Path, PathBuf};

/// A file of the data folder beside the checkout, where there is one.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}
