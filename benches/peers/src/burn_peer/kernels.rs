//! The matrix product, attention, LayerNorm.

use anyhow::Result;
use burn::tensor::module::layer_norm;
use burn::tensor::{Bool, Device, Tensor};

use super::model::{attention, hidden_keys};
use super::{Outputs, gradient, tensor, wait};
use crate::data::{AttentionData, LayerNormData, matrices};
use crate::digest::Digest;
use crate::measure::Work;
use crate::rows::{ATTENTION, LAYER_NORM, NORM_EPS};

pub struct Matmul {
    device: Device,
    a: Tensor<2>,
    b: Tensor<2>,
    out: Option<Tensor<2>>,
}

impl Matmul {
    pub fn new(device: Device, size: usize) -> Self {
        let [a, b] = matrices(size).map(|values| tensor(values, [size, size], &device));
        let out = None;
        Self { device, a, b, out }
    }
}

impl Work for Matmul {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            self.out = Some(self.a.clone().matmul(self.b.clone()));
        }
        wait(&self.device)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        Ok(Outputs::new().add("product", &self.out)?.0)
    }
}

pub struct Attention {
    device: Device,
    qkv: Tensor<3>,
    dout: Tensor<3>,
    hidden_keys: Tensor<4, Bool>,
    out: Option<Tensor<3>>,
    dqkv: Option<Tensor<3>>,
}

impl Attention {
    pub fn new(device: Device) -> Self {
        let [sequences, tokens, heads, width] = ATTENTION;
        let data = AttentionData::new();
        let of = |values, columns| tensor(values, [sequences, tokens, columns], &device);
        Self {
            qkv: of(data.qkv, 3 * heads * width).require_grad(),
            dout: of(data.dout, heads * width),
            hidden_keys: hidden_keys(tokens, &device),
            out: None,
            dqkv: None,
            device,
        }
    }
}

impl Work for Attention {
    fn run(&mut self, times: usize) -> Result<()> {
        let [_, _, heads, _] = ATTENTION;
        for _ in 0..times {
            let out = attention(self.qkv.clone(), heads, self.hidden_keys.clone());
            let gradients = (out.clone() * self.dout.clone()).sum().backward();
            self.dqkv = Some(gradient(&self.qkv, &gradients)?);
            self.out = Some(out);
        }
        wait(&self.device)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        let outputs = Outputs::new().add("out", &self.out)?;
        Ok(outputs.add("dqkv", &self.dqkv)?.0)
    }
}

pub struct Norm {
    device: Device,
    x: Tensor<2>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    dy: Tensor<2>,
    y: Option<Tensor<2>>,
    dx: Option<Tensor<2>>,
    dweight: Option<Tensor<1>>,
    dbias: Option<Tensor<1>>,
}

impl Norm {
    pub fn new(device: Device) -> Self {
        let [_, columns] = LAYER_NORM;
        let data = LayerNormData::new();
        Self {
            x: tensor(data.x, LAYER_NORM, &device).require_grad(),
            weight: tensor(data.weight, [columns], &device).require_grad(),
            bias: tensor(data.bias, [columns], &device).require_grad(),
            dy: tensor(data.dy, LAYER_NORM, &device),
            y: None,
            dx: None,
            dweight: None,
            dbias: None,
            device,
        }
    }
}

impl Work for Norm {
    fn run(&mut self, times: usize) -> Result<()> {
        for _ in 0..times {
            let (weight, bias) = (self.weight.clone(), self.bias.clone());
            let y = layer_norm(self.x.clone(), weight, Some(bias), NORM_EPS);
            let gradients = (y.clone() * self.dy.clone()).sum().backward();
            self.dx = Some(gradient(&self.x, &gradients)?);
            self.dweight = Some(gradient(&self.weight, &gradients)?);
            self.dbias = Some(gradient(&self.bias, &gradients)?);
            self.y = Some(y);
        }
        wait(&self.device)
    }

    fn digests(&mut self) -> Result<Vec<Digest>> {
        let outputs = Outputs::new().add("y", &self.y)?.add("dx", &self.dx)?;
        let outputs = outputs.add("dweight", &self.dweight)?;
        Ok(outputs.add("dbias", &self.dbias)?.0)
    }
}
