//! The header of a safetensors file: an eight-byte length, then JSON that says of each tensor its
//! type, its shape and where its bytes are.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{Formatter, Result as Formatted};
use std::ops::Range;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::refused;
use super::source::CONVERT;
use crate::Result;

/// Bytes that hold the header's length.
pub(super) const LENGTH_BYTES: usize = 8;
/// An entry that is no tensor.
const METADATA: &str = "__metadata__";

/// A file's tensors and where in it their bytes are, in that order: checked to cover the file
/// without gaps and overlaps, each as many bytes as its type and shape need.
pub(super) fn read_header(
    place: &str,
    bytes: &[u8],
) -> Result<Vec<(String, TensorInfo, Range<usize>)>> {
    let refuse = |detail: String| refused(place, explain(bytes).unwrap_or(detail));
    let header = header_bytes(bytes).map_err(refuse)?;
    let unusable = |error: String| refuse(format!("its header cannot be used: {error}"));
    let text = std::str::from_utf8(header).map_err(|error| unusable(error.to_string()))?;
    let Header(mut tensors) =
        serde_json::from_str(text).map_err(|error| unusable(error.to_string()))?;
    tensors.sort_by(|(a, left), (b, right)| {
        (left.data_offsets, a.as_str()).cmp(&(right.data_offsets, b.as_str()))
    });
    let first = LENGTH_BYTES + header.len();
    let data = bytes.len() - first;
    let mut end = 0;
    let mut found = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        check_tensor(&name, &info, end, data).map_err(refuse)?;
        let range = info.data_offsets.0 + first..info.data_offsets.1 + first;
        end = info.data_offsets.1;
        found.push((name, info, range));
    }
    if end != data {
        return Err(refuse(format!(
            "its tensors end after {end} bytes, the file has {data}: it is damaged, download it again"
        )));
    }
    Ok(found)
}

/// The tensors that a header lists. Whatever it says twice is refused: another reader may take the
/// other one.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let (mut tensors, mut names) = (Vec::new(), BTreeSet::new());
        while let Some(name) = map.next_key::<String>()? {
            let named = |error: A::Error| A::Error::custom(format!("`{name}`: {error}"));
            if name == METADATA {
                map.next_value::<Option<HashMap<String, String>>>()
                    .map_err(named)?;
            } else {
                let info = map.next_value().map_err(named)?;
                tensors.push((name.clone(), info));
            }
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
        }
        Ok(Header(tensors))
    }
}

fn header_bytes(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    let cut_off = |needed: String| {
        let len = bytes.len();
        format!(
            "its header needs {needed} bytes, the file has {len}: it is cut off or no safetensors \
             file, download it again"
        )
    };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(cut_off(format!("at least {LENGTH_BYTES}")));
    };
    let length = u64::from_le_bytes(*length);
    usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| cut_off(length.to_string()))
}

/// Checks one tensor, where the one before it ended at `end` of `data` bytes.
fn check_tensor(
    name: &str,
    info: &TensorInfo,
    end: usize,
    data: usize,
) -> std::result::Result<(), String> {
    let (from, to) = info.data_offsets;
    let (dtype, shape) = (info.dtype, &info.shape);
    if from != end || to < from {
        return Err(format!(
            "`{name}` lies at {from} to {to}, the tensor before it ends at {end}: the header is wrong"
        ));
    }
    if to > data {
        return Err(format!(
            "`{name}` ends after {to} bytes, the file has {data}: it is cut off, download it again"
        ));
    }
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize(), |bits, &dim| bits.checked_mul(dim))
        .ok_or_else(|| format!("`{name}` {shape:?} is larger than any memory"))?;
    if !bits.is_multiple_of(8) || bits / 8 != to - from {
        return Err(format!(
            "`{name}` {shape:?} of {dtype} has {} bytes: the header is wrong",
            to - from
        ));
    }
    Ok(())
}

/// What bytes that are no safetensors file are instead, where that can be told.
pub(super) fn explain(bytes: &[u8]) -> Option<String> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Some(
            "it is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder".into(),
        );
    }
    // A zip archive, as PyTorch makes, or a pickle of protocol 2 and later.
    let pickled = bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]);
    pickled.then(|| {
        format!(
            "it is no safetensors file but a pickle, which can run any program when it is read and \
             so is not: {CONVERT}"
        )
    })
}
