//! The matrix product, attention, LayerNorm.

use anyhow::Result;
use candle_core::{Tensor, Var};
use candle_nn::ops::layer_norm_slow;

use super::model::{attention, causal_mask};
use super::{Outputs, gradient, leaf, tensor};
use crate::data::{AttentionData, LayerNormData, matrices};
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{ATTENTION, LAYER_NORM, NORM_EPS};

pub struct Matmul {
    a: Tensor,
    b: Tensor,
    outputs: Outputs,
}

impl Matmul {
    pub fn new(size: usize) -> Result<Self> {
        let [a, b] = matrices(size);
        Ok(Self {
            a: tensor(a, (size, size))?,
            b: tensor(b, (size, size))?,
            outputs: Outputs::default(),
        })
    }
}

impl Work for Matmul {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            self.outputs = Outputs(vec![("product", self.a.matmul(&self.b)?)]);
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        self.outputs.digests()
    }
}

pub struct Attention {
    qkv: Var,
    dout: Tensor,
    mask: Tensor,
    outputs: Outputs,
}

impl Attention {
    pub fn new() -> Result<Self> {
        let [sequences, tokens, heads, width] = ATTENTION;
        let data = AttentionData::new();
        Ok(Self {
            qkv: leaf(data.qkv, (sequences, tokens, 3 * heads * width))?,
            dout: tensor(data.dout, (sequences, tokens, heads * width))?,
            mask: causal_mask(tokens)?,
            outputs: Outputs::default(),
        })
    }
}

impl Work for Attention {
    fn run(&mut self, times: usize) -> Result<()> {
        let [_, _, heads, _] = ATTENTION;
        for _ in 0..times {
            let out = attention(&self.qkv, heads, &self.mask)?;
            let gradients = (&out * &self.dout)?.sum_all()?.backward()?;
            let dqkv = gradient(&self.qkv, &gradients)?;
            self.outputs = Outputs(vec![("out", out), ("dqkv", dqkv)]);
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        self.outputs.digests()
    }
}

pub struct Norm {
    x: Var,
    weight: Var,
    bias: Var,
    dy: Tensor,
    outputs: Outputs,
}

impl Norm {
    pub fn new() -> Result<Self> {
        let [rows, columns] = LAYER_NORM;
        let data = LayerNormData::new();
        Ok(Self {
            x: leaf(data.x, (rows, columns))?,
            weight: leaf(data.weight, columns)?,
            bias: leaf(data.bias, columns)?,
            dy: tensor(data.dy, (rows, columns))?,
            outputs: Outputs::default(),
        })
    }
}

impl Work for Norm {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            // The quicker `layer_norm` has no backward pass.
            let y = layer_norm_slow(&self.x, &self.weight, &self.bias, NORM_EPS as f32)?;
            let gradients = (&y * &self.dy)?.sum_all()?.backward()?;
            self.outputs = Outputs(vec![
                ("dx", gradient(&self.x, &gradients)?),
                ("dweight", gradient(&self.weight, &gradients)?),
                ("dbias", gradient(&self.bias, &gradients)?),
            ]);
            self.outputs.0.insert(0, ("y", y));
        }
        Ok(())
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        self.outputs.digests()
    }
}
