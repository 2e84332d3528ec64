//! Matrix products in the three layouts that a linear layer's forward and backward need.

use super::dot;

/// How the two operands of [`matmul`] are stored (`N` as is, `T` transposed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `A·B`: `a` is `[m, k]`, `b` is `[k, n]`.
    NN,
    /// `A·Bᵀ`: `a` is `[m, k]`, `b` is `[n, k]`.
    NT,
    /// `Aᵀ·B`: `a` is `[k, m]`, `b` is `[k, n]`.
    TN,
}

/// `C = op(A)·op(B)`, `[m, n]`: `C[i, j] = Σ_p op(A)[i, p] op(B)[p, j]` with `k` terms.
pub fn matmul(a: &[f64], b: &[f64], layout: Layout, m: usize, n: usize, k: usize) -> Vec<f64> {
    assert_eq!((a.len(), b.len()), (m * k, k * n), "matmul operands");
    // Rows of op(A) [m, k] and columns of op(B) as rows [n, k], so that each output is a dot
    // product of two contiguous runs.
    let a = match layout {
        Layout::NN | Layout::NT => a.to_vec(),
        Layout::TN => transpose(a, k, m),
    };
    let b = match layout {
        Layout::NN | Layout::TN => transpose(b, k, n),
        Layout::NT => b.to_vec(),
    };
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = dot(&a[i * k..(i + 1) * k], &b[j * k..(j + 1) * k]);
        }
    }
    c
}

/// Gradients of [`matmul`]'s operands, each in its operand's own layout.
#[derive(Debug, Clone, PartialEq)]
pub struct MatmulGradients {
    /// Of `a`.
    pub da: Vec<f64>,
    /// Of `b`.
    pub db: Vec<f64>,
}

/// Backward of [`matmul`] from `dc` `[m, n]`.
///
/// With `A` and `B` as stored: NN `dA = dC·Bᵀ`, `dB = Aᵀ·dC`; NT `dA = dC·B`, `dB = dCᵀ·A`;
/// TN `dA = B·dCᵀ`, `dB = A·dC`.
pub fn matmul_backward(
    a: &[f64],
    b: &[f64],
    dc: &[f64],
    layout: Layout,
    (m, n, k): (usize, usize, usize),
) -> MatmulGradients {
    let (da, db) = match layout {
        Layout::NN => (
            matmul(dc, b, Layout::NT, m, k, n),
            matmul(a, dc, Layout::TN, k, n, m),
        ),
        Layout::NT => (
            matmul(dc, b, Layout::NN, m, k, n),
            matmul(dc, a, Layout::TN, n, k, m),
        ),
        Layout::TN => (
            matmul(b, dc, Layout::NT, k, m, n),
            matmul(a, dc, Layout::NN, k, n, m),
        ),
    };
    MatmulGradients { da, db }
}

/// Adds `bias` `[n]` to every row of `y` `[m, n]`.
pub fn add_bias(y: &mut [f64], bias: &[f64]) {
    assert_eq!(y.len() % bias.len(), 0, "rows of the bias' width");
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
}

/// Gradient of a bias `[n]`: the column sums of `dy` `[m, n]`.
pub fn bias_gradient(dy: &[f64], n: usize) -> Vec<f64> {
    assert_eq!(dy.len() % n, 0, "rows of the bias' width");
    let mut dbias = vec![0.0; n];
    for row in dy.chunks_exact(n) {
        for (db, dy) in dbias.iter_mut().zip(row) {
            *db += dy;
        }
    }
    dbias
}

/// `[rows, cols]` to `[cols, rows]`.
fn transpose(x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * cols];
    for r in 0..rows {
        for c in 0..cols {
            out[c * rows + r] = x[r * cols + c];
        }
    }
    out
}
