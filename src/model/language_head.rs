//! The language-model head: the token table, or a matrix of its own, in windows of rows.

use super::{Gpt2Config, Parameters};
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::Size;
use crate::kernels::nn::cross_entropy::HeadWindow;
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};

/// The head of a language model: its token table where the configuration ties them, otherwise
/// `lm_head.weight`.
///
/// # Errors
///
/// [`crate::Error::Model`] if the parameters have no such matrix.
pub fn head_windows<'a>(
    parameters: &'a Parameters,
    config: &Gpt2Config,
) -> Result<Vec<HeadWindow<'a>>> {
    let name = if config.tie_word_embeddings {
        "transformer.wte.weight"
    } else {
        "lm_head.weight"
    };
    windows_of(parameters, name)
}

/// The windows of a table of (V, C) as a head.
pub(super) fn windows_of<'a>(
    parameters: &'a Parameters,
    name: &str,
) -> Result<Vec<HeadWindow<'a>>> {
    let windows = parameters.windows(name)?.iter().map(|window| HeadWindow {
        weight: &window.weight,
        dweight: Some(&window.gradient),
        first_row: window.first_row,
    });
    Ok(windows.collect())
}

/// Appends `logits[:, ..V] = hidden headᵀ` for the live rows; hidden is (R, C), logits (R, V
/// rounded up to a multiple of 4).
///
/// # Errors
///
/// What the matrix product refuses.
pub(super) fn record_logits(
    plan: &mut Plan,
    hidden: &Tensor,
    head: &[HeadWindow<'_>],
    logits: &Tensor,
    (rows, counts): (Size, &Tensor),
) -> Result<()> {
    for window in head {
        let [tokens, width] = *window.weight.shape() else {
            return Err(crate::Error::shape("language head", "it is no matrix"));
        };
        let io = MatmulIo {
            a: Matrix::whole(hidden),
            b: Matrix::whole(window.weight),
            out: Matrix::from_column(logits, window.first_row),
            epilogue: Epilogue::Store,
            counts: Some(counts),
        };
        let sizes = MatmulSizes {
            layout: Layout::Nt,
            m: rows,
            n: tokens,
            k: Size::fixed(width),
        };
        matmul(plan, &io, &sizes)?;
    }
    Ok(())
}
