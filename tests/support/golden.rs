//! Cases computed by PyTorch in `float64`: inputs exact in `f32`, outputs and gradients.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::tensors::{Array, read};

/// One case of a group.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// Under `in.x`, `cot.y`, `out.y`, `grad.x`.
    arrays: BTreeMap<String, Array>,
    /// The case's entry of the manifest.
    entry: Value,
}

impl Case {
    pub fn input(&self, name: &str) -> &Array {
        self.array("in", name)
    }

    pub fn has_input(&self, name: &str) -> bool {
        self.arrays.contains_key(&format!("in.{name}"))
    }

    /// The gradient that comes in at an output.
    pub fn cotangent(&self, name: &str) -> &Array {
        self.array("cot", name)
    }

    pub fn output(&self, name: &str) -> &Array {
        self.array("out", name)
    }

    /// The gradient of an input.
    pub fn gradient(&self, name: &str) -> &Array {
        self.array("grad", name)
    }

    /// A number that the case was made with; `None` where it is null or not given.
    pub fn attribute(&self, name: &str) -> Option<f64> {
        self.entry["attrs"][name].as_f64()
    }

    /// A number that the case must have been made with.
    pub fn number(&self, name: &str) -> f64 {
        self.attribute(name)
            .unwrap_or_else(|| panic!("{} has no attribute {name}", self.name))
    }

    /// The relative error that PyTorch's own `f32` run makes; `array` as in `out.y`, `grad.x`.
    pub fn torch_error(&self, array: &str) -> Option<f64> {
        self.entry["torch_f32_err"][array][1].as_f64()
    }

    fn array(&self, kind: &str, name: &str) -> &Array {
        self.arrays
            .get(&format!("{kind}.{name}"))
            .unwrap_or_else(|| panic!("{} has no {kind}.{name}", self.name))
    }
}

/// The cases of a group whose names start with `prefix`, in the order of their names; none, with a
/// message, where the fixtures are not there.
pub fn cases(group: &str, prefix: &str) -> Vec<Case> {
    let Some(folder) = super::fixture("golden") else {
        return Vec::new();
    };
    let mut grouped: BTreeMap<String, BTreeMap<String, Array>> = BTreeMap::new();
    for (key, array) in read(&folder.join(format!("{group}.safetensors"))) {
        let (case, name) = split(&key);
        let arrays = grouped.entry(case.to_owned()).or_default();
        arrays.insert(name.to_owned(), array);
    }
    let mut entries = manifest(&folder.join("manifest.json"), group);
    let cases: Vec<Case> = grouped
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, arrays)| Case {
            entry: entries.remove(&name).unwrap_or_default(),
            name,
            arrays,
        })
        .collect();
    assert!(!cases.is_empty(), "no case {prefix}* in {group}");
    cases
}

/// Splits `<case>.<kind>.<array>`; the case's name may hold dots.
fn split(key: &str) -> (&str, &str) {
    ["in", "cot", "out", "grad"]
        .iter()
        .filter_map(|kind| key.rfind(&format!(".{kind}.")))
        .max()
        .map(|at| (&key[..at], &key[at + 1..]))
        .unwrap_or_else(|| panic!("{key} is not of the form case.kind.array"))
}

/// The entries of a group's cases by name.
fn manifest(path: &Path, group: &str) -> BTreeMap<String, Value> {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest: Value = serde_json::from_slice(&text).expect("a manifest in JSON");
    let cases = manifest["cases"].as_array().expect("a list of cases");
    cases
        .iter()
        .filter(|case| case["group"] == group)
        .filter_map(|case| Some((case["name"].as_str()?.to_owned(), case.clone())))
        .collect()
}
