//! What several test binaries share.

// Each binary uses its own part of this module.
#![allow(dead_code)]

pub mod checkpoint;
pub mod golden;
pub mod random;
pub mod tensors;
pub mod uncached;

use std::path::{Path, PathBuf};

/// A folder under `tests/fixtures`; where it is not there, says that what needs it is skipped.
pub fn fixture(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    if !folder.exists() {
        println!("skipped: there is no {}", folder.display());
        return None;
    }
    Some(folder)
}
