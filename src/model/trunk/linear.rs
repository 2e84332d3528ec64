//! Linear layers, stored either way round, with biases or without.

use super::Trunk;
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::Size;
use crate::kernels::nn::bias_gradient::{BiasGradientIo, bias_gradient};
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use crate::model::layers::LinearPart;
use crate::model::{Parameters, Window};

/// The tensors of one linear layer.
pub(super) struct Linear<'a> {
    weight: &'a Window,
    bias: Option<&'a Window>,
    inputs: usize,
    outputs: usize,
    /// Stored (in, out) and not (out, in).
    input_major: bool,
}

/// What becomes of a linear layer's output.
#[derive(Clone, Copy)]
pub(super) enum After<'a> {
    /// It is stored.
    Store,
    /// `out = x W + b + residual`
    Residual(&'a Tensor),
    /// `pre = x W + b; out = gelu(pre)`
    Gelu { pre: &'a Tensor },
}

impl<'a> Linear<'a> {
    fn epilogue(&self, after: After<'a>) -> Result<Epilogue<'a>> {
        let bias = self.bias.map(|window| &window.weight);
        Ok(match (after, bias) {
            (After::Store, None) => Epilogue::Store,
            (After::Store, Some(bias)) => Epilogue::Bias { bias },
            (After::Residual(residual), None) => Epilogue::Residual { residual },
            (After::Residual(residual), Some(bias)) => Epilogue::BiasResidual { bias, residual },
            (After::Gelu { pre }, Some(bias)) => Epilogue::BiasGelu { bias, pre },
            (After::Gelu { .. }, None) => {
                return Err(crate::Error::shape(
                    "trunk",
                    "GELU behind a layer without bias",
                ));
            }
        })
    }
}

impl Trunk {
    pub(super) fn linear<'a>(
        &self,
        parameters: &'a Parameters,
        layer: usize,
        part: LinearPart,
    ) -> Result<Linear<'a>> {
        let (inputs, outputs, bias) = self.config.linear(part);
        let name = self.config.family.linear(layer, part);
        Ok(Linear {
            weight: parameters.whole(&format!("{name}.weight"))?,
            bias: match bias {
                true => Some(parameters.whole(&format!("{name}.bias"))?),
                false => None,
            },
            inputs,
            outputs,
            input_major: self.config.family.input_major(),
        })
    }

    /// `out = after(x W + b)`: x (T, inputs).
    pub(super) fn linear_forward(
        &self,
        plan: &mut Plan,
        linear: &Linear<'_>,
        counts: &Tensor,
        (x, out): (&Tensor, &Tensor),
        after: After<'_>,
    ) -> Result<()> {
        let io = MatmulIo {
            a: Matrix::whole(x),
            b: Matrix::whole(&linear.weight.weight),
            out: Matrix::whole(out),
            epilogue: linear.epilogue(after)?,
            counts: Some(counts),
        };
        let sizes = MatmulSizes {
            layout: match linear.input_major {
                true => Layout::Nn,
                false => Layout::Nt,
            },
            m: self.rows(),
            n: linear.outputs,
            k: Size::fixed(linear.inputs),
        };
        matmul(plan, &io, &sizes)
    }

    /// `dW += xᵀ dy`, `db += Σ rows of dy`, `dx = epilogue(dy Wᵀ)`.
    pub(super) fn linear_backward(
        &self,
        plan: &mut Plan,
        linear: &Linear<'_>,
        counts: &Tensor,
        (x, dy): (&Tensor, &Tensor),
        (dx, epilogue): (&Tensor, Epilogue<'_>),
    ) -> Result<()> {
        let counts = Some(counts);
        let (inputs, outputs) = (linear.inputs, linear.outputs);
        let (a, b, m, n) = match linear.input_major {
            true => (x, dy, inputs, outputs),
            false => (dy, x, outputs, inputs),
        };
        let io = MatmulIo {
            a: Matrix::whole(a),
            b: Matrix::whole(b),
            out: Matrix::whole(&linear.weight.gradient),
            epilogue: Epilogue::Add,
            counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Tn,
            m: Size::fixed(m),
            n,
            k: self.rows(),
        };
        matmul(plan, &io, &sizes)?;
        if let Some(bias) = linear.bias {
            let io = BiasGradientIo {
                dy,
                dbias: &bias.gradient,
                partials: &self.gradients()?.partials,
                counts,
            };
            bias_gradient(plan, &io, self.rows(), outputs)?;
        }
        let io = MatmulIo {
            a: Matrix::whole(dy),
            b: Matrix::whole(&linear.weight.weight),
            out: Matrix::whole(dx),
            epilogue,
            counts,
        };
        let sizes = MatmulSizes {
            layout: match linear.input_major {
                true => Layout::Nt,
                false => Layout::Nn,
            },
            m: self.rows(),
            n: inputs,
            k: Size::fixed(outputs),
        };
        matmul(plan, &io, &sizes)
    }
}
