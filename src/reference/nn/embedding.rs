//! Embeddings of tokens and of learned positions.

/// Learned embeddings of positions.
#[derive(Debug, Clone, Copy)]
pub struct Positions<'a> {
    /// `[T]`
    pub ids: &'a [u32],
    /// `[contexts, C]`
    pub table: &'a [f64],
}

/// `out[t] = token_table[tokens[t]]`, plus `positions.table[positions.ids[t]]` where there are
/// `positions`, `[T, C]`.
///
/// `tokens` is `[T]`, the table `[V, C]`, `width` is `C`.
pub fn embedding_forward(
    tokens: &[u32],
    token_table: &[f64],
    positions: Option<Positions<'_>>,
    width: usize,
) -> Vec<f64> {
    let mut out = gather_rows(tokens, token_table, width);
    if let Some(Positions { ids, table }) = positions {
        assert_eq!(tokens.len(), ids.len(), "one position a token");
        for (out, value) in out.iter_mut().zip(gather_rows(ids, table, width)) {
            *out += value;
        }
    }
    out
}

/// `table[ids[t]]`, `[T, width]`.
fn gather_rows(ids: &[u32], table: &[f64], width: usize) -> Vec<f64> {
    let row = |&id: &u32| table[id as usize * width..][..width].iter().copied();
    ids.iter().flat_map(row).collect()
}

/// Backward of [`embedding_forward`] for the table of `rows` rows that `ids` `[T]` read, from
/// `dout` `[T, C]`: each row of the table sums the rows of `dout` that read it, in ascending order;
/// rows that nothing read are zero, `[rows, C]`.
pub fn embedding_backward(ids: &[u32], dout: &[f64], rows: usize, width: usize) -> Vec<f64> {
    assert_eq!(dout.len(), ids.len() * width, "dout is [T, C]");
    let mut dtable = vec![0.0; rows * width];
    for (&id, row) in ids.iter().zip(dout.chunks_exact(width)) {
        for (c, value) in row.iter().enumerate() {
            dtable[id as usize * width + c] += value;
        }
    }
    dtable
}
