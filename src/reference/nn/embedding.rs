//! Token and learned position embeddings.

/// `out[t] = token_table[tokens[t]] + position_table[positions[t]]`, `[T, C]`.
///
/// `tokens` and `positions` are `[T]`, the tables `[V, C]` and `[contexts, C]`, `width` is `C`.
pub fn embedding_forward(
    tokens: &[u32],
    positions: &[u32],
    token_table: &[f64],
    position_table: &[f64],
    width: usize,
) -> Vec<f64> {
    assert_eq!(tokens.len(), positions.len(), "one position a token");
    let mut out = Vec::with_capacity(tokens.len() * width);
    for (&token, &position) in tokens.iter().zip(positions) {
        let (token, position) = (token as usize * width, position as usize * width);
        for c in 0..width {
            out.push(token_table[token + c] + position_table[position + c]);
        }
    }
    out
}

/// Gradients of the two tables.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingGradients {
    /// Of the token table, `[V, C]`; rows of tokens that do not occur are zero.
    pub dtoken_table: Vec<f64>,
    /// Of the position table, `[contexts, C]`; rows of positions that do not occur are zero.
    pub dposition_table: Vec<f64>,
}

/// Backward of [`embedding_forward`] from `dout` `[T, C]`: each table row sums the rows of `dout`
/// that read it, in ascending order. `vocabulary` and `contexts` are the tables' numbers of rows.
pub fn embedding_backward(
    tokens: &[u32],
    positions: &[u32],
    dout: &[f64],
    vocabulary: usize,
    contexts: usize,
    width: usize,
) -> EmbeddingGradients {
    assert_eq!(dout.len(), tokens.len() * width, "dout is [T, C]");
    EmbeddingGradients {
        dtoken_table: scatter_rows(tokens, dout, vocabulary, width),
        dposition_table: scatter_rows(positions, dout, contexts, width),
    }
}

/// `out[ids[t]] += rows[t]`, `[count, width]`.
fn scatter_rows(ids: &[u32], rows: &[f64], count: usize, width: usize) -> Vec<f64> {
    let mut out = vec![0.0; count * width];
    for (&id, row) in ids.iter().zip(rows.chunks_exact(width)) {
        for (c, value) in row.iter().enumerate() {
            out[id as usize * width + c] += value;
        }
    }
    out
}
