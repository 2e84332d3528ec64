//! Arrays of a `safetensors` file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// An array of any of the types that the fixtures hold.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

impl Array {
    /// The values as stored; the array must be of `f32`.
    pub fn f32(&self) -> Vec<f32> {
        match &self.values {
            Values::F32(values) => values.clone(),
            other => panic!("expected f32, found {other:?}"),
        }
    }

    /// The values in `f64`, exact for `f32` and `f64` arrays.
    pub fn f64(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(values) => values.iter().map(|&x| f64::from(x)).collect(),
            Values::F64(values) => values.clone(),
            other => panic!("expected floating point, found {other:?}"),
        }
    }

    /// Indices; the array must be of integers that fit.
    pub fn u32(&self) -> Vec<u32> {
        match &self.values {
            Values::I64(values) => values
                .iter()
                .map(|&x| u32::try_from(x).expect("an index"))
                .collect(),
            other => panic!("expected integers, found {other:?}"),
        }
    }

    /// The only value.
    pub fn scalar(&self) -> f64 {
        let values = self.f64();
        assert_eq!(values.len(), 1, "a scalar");
        values[0]
    }
}

/// Every array of a file.
pub fn read(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.iter()
        .map(|(name, view)| {
            let array = Array {
                shape: view.shape().to_vec(),
                values: values(view.dtype(), view.data()),
            };
            (name.to_owned(), array)
        })
        .collect()
}

fn values(dtype: Dtype, data: &[u8]) -> Values {
    match dtype {
        Dtype::F32 => Values::F32(words(data, f32::from_le_bytes)),
        Dtype::F64 => Values::F64(words(data, f64::from_le_bytes)),
        Dtype::I64 => Values::I64(words(data, i64::from_le_bytes)),
        other => panic!("no fixture holds {other:?}"),
    }
}

fn words<const N: usize, T>(data: &[u8], from: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>()
        .0
        .iter()
        .map(|&word| from(word))
        .collect()
}
