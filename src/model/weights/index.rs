//! `model.safetensors.index.json`: which tensor is in which file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;

use super::header::explain;
use super::refused;
use super::source::CONVERT;
use super::writer::TensorEntry;
use crate::Result;

/// The part of an index that matters: the file of each tensor.
pub(super) type Index = BTreeMap<String, String>;

#[derive(Deserialize)]
struct IndexFile {
    weight_map: Index,
}

pub(super) fn read_index(place: &str, bytes: &[u8]) -> Result<Index> {
    let file: IndexFile = serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("no index of weight files: {error}");
        refused(place, explain(bytes).unwrap_or(detail))
    })?;
    Ok(file.weight_map)
}

/// The files that an index names, each once.
pub(super) fn shard_names<'a>(place: &str, index: &'a Index) -> Result<BTreeSet<&'a str>> {
    let mut names = BTreeSet::new();
    for (tensor, shard) in index {
        if shard.contains(['/', '\\', ':', '\0']) || shard.contains("..") {
            return Err(refused(
                place,
                format!("`{tensor}` is said to be in `{shard}`: a shard lies beside the index"),
            ));
        }
        if !shard.ends_with(".safetensors") {
            return Err(refused(
                place,
                format!(
                    "`{tensor}` is said to be in `{shard}`, which is no safetensors file and could \
                     run any program when it is read: {CONVERT}"
                ),
            ));
        }
        names.insert(shard.as_str());
    }
    if names.is_empty() {
        return Err(refused(place, "its weight_map is empty".into()));
    }
    Ok(names)
}

/// The index of tensors in shards, as `transformers` writes it.
pub(super) fn index_json<'a>(
    entries: impl Iterator<Item = &'a TensorEntry>,
    index: &Index,
) -> String {
    let bytes: u64 = entries.map(TensorEntry::bytes).sum();
    let json = json!({
        "metadata": {"total_parameters": bytes / 4, "total_size": bytes},
        "weight_map": index,
    });
    format!("{json:#}\n")
}
