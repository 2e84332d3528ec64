//! [`StoredTensor`]: a tensor in a weight file.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::refused;
use crate::{Error, Result};

/// Values that are converted at once: 1 MiB of them.
const PIECE: usize = 1 << 18;

/// A tensor in a weight file, as it is there.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// The type of its values.
    pub dtype: Dtype,
    /// The shape, outermost dimension first.
    pub shape: &'a [usize],
    /// The file.
    pub file: &'a str,
    /// Its values, little-endian, row-major.
    pub bytes: &'a [u8],
}

impl StoredTensor<'_> {
    /// Whether its values can be read: F32, F16 and BF16.
    pub fn is_readable(&self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// Gives its values in order, in pieces of at most 1 MiB, each with the index of its first:
    /// those of F16 and BF16 converted, those of F32 as they lie in the file where that is aligned.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for another type, and what `take` returns.
    pub fn pieces(&self, mut take: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        match self.dtype {
            Dtype::F32 => match bytemuck::try_cast_slice::<u8, f32>(self.bytes) {
                Ok(values) => values
                    .chunks(PIECE)
                    .enumerate()
                    .try_for_each(|(i, values)| take(i * PIECE, values)),
                Err(_) => self.converted(|from: &[f32], to| to.copy_from_slice(from), &mut take),
            },
            Dtype::F16 => {
                self.converted(|from: &[f16], to| from.convert_to_f32_slice(to), &mut take)
            }
            Dtype::BF16 => {
                self.converted(|from: &[bf16], to| from.convert_to_f32_slice(to), &mut take)
            }
            _ => Err(self.unreadable()),
        }
    }

    /// All its values.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] for another type than F32, F16 and BF16.
    pub fn values(&self) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        self.pieces(|_, piece| {
            values.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(values)
    }

    pub(super) fn unreadable(&self) -> Error {
        let detail = format!(
            "`{}` is {}; F32, F16 and BF16 are read",
            self.name, self.dtype
        );
        refused(self.file, detail)
    }

    fn converted<T: bytemuck::Pod>(
        &self,
        convert: impl Fn(&[T], &mut [f32]),
        take: &mut impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let len = self.bytes.len() / size_of::<T>();
        let mut values = vec![0.0f32; len.min(PIECE)];
        for (i, bytes) in self.bytes.chunks(PIECE * size_of::<T>()).enumerate() {
            // A copy where the file has the values at an odd address.
            let aligned: Vec<T>;
            let from = match bytemuck::try_cast_slice(bytes) {
                Ok(from) => from,
                Err(_) => {
                    aligned = bytemuck::pod_collect_to_vec(bytes);
                    &aligned
                }
            };
            let to = &mut values[..from.len()];
            convert(from, to);
            take(i * PIECE, to)?;
        }
        Ok(())
    }
}
