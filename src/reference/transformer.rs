//! The complete GPT-2 decoder (Radford et al. 2019; layer order as in `transformers`' `GPT2Model`)
//! over a packed run, forward and backward, with a reward head or a tied language-model head.
//!
//! For each layer `x += c_proj(attention(c_attn(ln_1(x))))`, then
//! `x += c_proj(gelu(c_fc(ln_2(x))))`; after the last layer `hidden = ln_f(x)`. Weights of linear
//! layers are stored as Hugging Face's `Conv1D` has them, `[in, out]`: `y = x·W + b`.

use std::collections::BTreeMap;

use super::nn::attention::{Attention, Heads, Segment, attention_backward, attention_forward};
use super::nn::cross_entropy::{Target, cross_entropy};
use super::nn::embedding::{Positions, embedding_backward, embedding_forward};
use super::nn::gelu::{Gelu, gelu_backward, gelu_forward};
use super::nn::layer_norm::{LayerNorm, layer_norm_backward, layer_norm_forward};
use super::nn::matmul::{Layout, add_bias, bias_gradient, matmul, matmul_backward};
use super::preference::pairwise_loss::{Pair, PairwiseLoss, PairwiseLossOptions, pairwise_loss};
use super::preference::pooled_head::{pooled_head_backward, pooled_head_forward};
use crate::{Error, Result};

/// Parameters, or their gradients, under their Hugging Face names.
pub type Parameters = BTreeMap<String, Vec<f64>>;

const WTE: &str = "transformer.wte.weight";
const WPE: &str = "transformer.wpe.weight";
const LN_F: &str = "transformer.ln_f";
const SCORE: &str = "score.weight";

/// Sizes of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transformer {
    /// Vocabulary `V`.
    pub vocabulary: usize,
    /// Number of positions.
    pub context: usize,
    /// Width `C`; divisible by `heads`.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads, each with keys and values of its own.
    pub heads: usize,
    /// Width of the hidden layer of each MLP, usually `4 C`.
    pub inner: usize,
    /// `eps` of every LayerNorm.
    pub eps: f64,
    /// Activation of the MLPs.
    pub gelu: Gelu,
}

/// A packed run of `T` tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run<'a> {
    /// Tokens, `[T]`.
    pub tokens: &'a [u32],
    /// Positions, `[T]`.
    pub positions: &'a [u32],
    /// Segments, which together cover every row once.
    pub segments: &'a [Segment],
}

/// What [`Transformer::forward`] gives: the hidden states, and what the backward needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    layers: Vec<LayerForward>,
    /// Input of the last norm, `[T, C]`.
    residual: Vec<f64>,
    ln_f: LayerNorm,
}

impl Forward {
    /// Hidden states after the last norm, `[T, C]`.
    pub fn hidden(&self) -> &[f64] {
        &self.ln_f.y
    }
}

/// Intermediate values of one layer.
#[derive(Debug, Clone, PartialEq)]
struct LayerForward {
    /// Input of `ln_1`, `[T, C]`.
    residual_1: Vec<f64>,
    ln_1: LayerNorm,
    /// `[T, 3C]`.
    qkv: Vec<f64>,
    attention: Attention,
    /// Input of `ln_2`, `[T, C]`.
    residual_2: Vec<f64>,
    ln_2: LayerNorm,
    /// Input of the GELU, `[T, inner]`.
    fc: Vec<f64>,
    /// Output of the GELU, `[T, inner]`.
    gelu: Vec<f64>,
}

/// Rewards, loss and gradients of a run of pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardStep {
    /// Rewards, `[2P]`: chosen and rejected in turn.
    pub rewards: Vec<f64>,
    /// Loss and statistics.
    pub loss: PairwiseLoss,
    /// Gradient of the loss with respect to every parameter.
    pub gradients: Parameters,
}

/// Loss and gradients of a run of next-token targets.
#[derive(Debug, Clone, PartialEq)]
pub struct LanguageStep {
    /// `scale Σ_n weight_n (-logprob_n)`.
    pub loss: f64,
    /// Log-probability of each target's token, `[N]`.
    pub logprobs: Vec<f64>,
    /// Gradient of the loss with respect to every parameter.
    pub gradients: Parameters,
}

impl Transformer {
    /// Name and number of elements of each parameter of the decoder, heads not included.
    pub fn parameter_sizes(&self) -> BTreeMap<String, usize> {
        let (width, inner) = (self.width, self.inner);
        let mut sizes = BTreeMap::from([
            (WTE.to_owned(), self.vocabulary * width),
            (WPE.to_owned(), self.context * width),
        ]);
        let mut pair = |name: String, weight: usize, bias: usize| {
            sizes.insert(format!("{name}.weight"), weight);
            sizes.insert(format!("{name}.bias"), bias);
        };
        pair(LN_F.to_owned(), width, width);
        for layer in 0..self.layers {
            pair(layer_name(layer, "ln_1"), width, width);
            pair(
                layer_name(layer, "attn.c_attn"),
                width * 3 * width,
                3 * width,
            );
            pair(layer_name(layer, "attn.c_proj"), width * width, width);
            pair(layer_name(layer, "ln_2"), width, width);
            pair(layer_name(layer, "mlp.c_fc"), width * inner, inner);
            pair(layer_name(layer, "mlp.c_proj"), inner * width, width);
        }
        sizes
    }

    /// Hidden states of a run.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a parameter is missing or has a wrong size.
    pub fn forward(&self, parameters: &Parameters, run: &Run) -> Result<Forward> {
        self.check(parameters)?;
        let positions = Positions {
            ids: run.positions,
            table: get(parameters, WPE)?,
        };
        let token_table = get(parameters, WTE)?;
        let mut x = embedding_forward(run.tokens, token_table, Some(positions), self.width);
        let mut layers = Vec::with_capacity(self.layers);
        for layer in 0..self.layers {
            let (forward, out) = self.layer_forward(parameters, run, layer, x)?;
            layers.push(forward);
            x = out;
        }
        let ln_f = self.norm_forward(parameters, LN_F, &x)?;
        Ok(Forward {
            layers,
            residual: x,
            ln_f,
        })
    }

    /// Gradients of every parameter of the decoder from `dhidden` `[T, C]`.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a parameter is missing or has a wrong size.
    pub fn backward(
        &self,
        parameters: &Parameters,
        run: &Run,
        forward: &Forward,
        dhidden: &[f64],
    ) -> Result<Parameters> {
        self.check(parameters)?;
        let mut gradients = Parameters::new();
        let mut backward = Backward {
            parameters,
            gradients: &mut gradients,
        };
        let mut dx = backward.norm(LN_F, &forward.residual, &forward.ln_f, dhidden)?;
        for (layer, values) in forward.layers.iter().enumerate().rev() {
            dx = self.layer_backward(&mut backward, run, layer, values, dx)?;
        }
        for (name, ids, rows) in [
            (WTE, run.tokens, self.vocabulary),
            (WPE, run.positions, self.context),
        ] {
            let dtable = embedding_backward(ids, &dx, rows, self.width);
            gradients.insert(name.to_owned(), dtable);
        }
        Ok(gradients)
    }

    /// The reward of each answer, `[A]`: `score.weight` on its pooled row.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a parameter is missing or has a wrong size.
    pub fn rewards(
        &self,
        parameters: &Parameters,
        run: &Run,
        pooled_rows: &[u32],
    ) -> Result<Vec<f64>> {
        let forward = self.forward(parameters, run)?;
        let score = self.score(parameters)?;
        Ok(pooled_head_forward(
            forward.hidden(),
            pooled_rows,
            score,
            0.0,
        ))
    }

    /// Rewards, pairwise loss and all gradients; `pooled_rows` `[2P]` names the chosen and the
    /// rejected answer of each pair in turn.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a parameter is missing or has a wrong size.
    pub fn reward_step(
        &self,
        parameters: &Parameters,
        run: &Run,
        pooled_rows: &[u32],
        pairs: &[Pair],
        options: &PairwiseLossOptions,
    ) -> Result<RewardStep> {
        let forward = self.forward(parameters, run)?;
        let score = self.score(parameters)?;
        let rewards = pooled_head_forward(forward.hidden(), pooled_rows, score, 0.0);
        let loss = pairwise_loss(&rewards, pairs, options);
        let head = pooled_head_backward(forward.hidden(), pooled_rows, score, &loss.drewards);
        let mut gradients = self.backward(parameters, run, &forward, &head.dhidden)?;
        gradients.insert(SCORE.to_owned(), head.dw);
        Ok(RewardStep {
            rewards,
            loss,
            gradients,
        })
    }

    /// Next-token loss and all gradients, with the token embedding as the head (tied weights): its
    /// gradient is the sum of both uses.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a parameter is missing or has a wrong size.
    pub fn language_step(
        &self,
        parameters: &Parameters,
        run: &Run,
        targets: &[Target],
        scale: f64,
    ) -> Result<LanguageStep> {
        let forward = self.forward(parameters, run)?;
        let head = get(parameters, WTE)?;
        let out = cross_entropy(forward.hidden(), head, targets, self.width, scale);
        let mut gradients = self.backward(parameters, run, &forward, &out.dhidden)?;
        if let Some(dwte) = gradients.get_mut(WTE) {
            add(dwte, &out.dhead);
        }
        Ok(LanguageStep {
            loss: out.loss,
            logprobs: out.logprobs,
            gradients,
        })
    }

    fn layer_forward(
        &self,
        parameters: &Parameters,
        run: &Run,
        layer: usize,
        x: Vec<f64>,
    ) -> Result<(LayerForward, Vec<f64>)> {
        let name = |part: &str| layer_name(layer, part);
        let ln_1 = self.norm_forward(parameters, &name("ln_1"), &x)?;
        let qkv = linear_forward(parameters, &name("attn.c_attn"), &ln_1.y, self.width)?;
        let attention = attention_forward(&qkv, run.segments, self.attention_heads());
        let mut residual_2 =
            linear_forward(parameters, &name("attn.c_proj"), &attention.out, self.width)?;
        add(&mut residual_2, &x);
        let ln_2 = self.norm_forward(parameters, &name("ln_2"), &residual_2)?;
        let fc = linear_forward(parameters, &name("mlp.c_fc"), &ln_2.y, self.width)?;
        let gelu = gelu_forward(&fc, self.gelu);
        let mut out = linear_forward(parameters, &name("mlp.c_proj"), &gelu, self.inner)?;
        add(&mut out, &residual_2);
        let values = LayerForward {
            residual_1: x,
            ln_1,
            qkv,
            attention,
            residual_2,
            ln_2,
            fc,
            gelu,
        };
        Ok((values, out))
    }

    /// Gradient of a layer's input from `dout`, that of its output.
    fn layer_backward(
        &self,
        backward: &mut Backward,
        run: &Run,
        layer: usize,
        values: &LayerForward,
        dout: Vec<f64>,
    ) -> Result<Vec<f64>> {
        let name = |part: &str| layer_name(layer, part);
        let dgelu = backward.linear(&name("mlp.c_proj"), &values.gelu, &dout, self.inner)?;
        let dfc = gelu_backward(&values.fc, &dgelu, self.gelu);
        let dln_2 = backward.linear(&name("mlp.c_fc"), &values.ln_2.y, &dfc, self.width)?;
        let mut dx = backward.norm(&name("ln_2"), &values.residual_2, &values.ln_2, &dln_2)?;
        add(&mut dx, &dout);

        let c_proj = name("attn.c_proj");
        let dattention = backward.linear(&c_proj, &values.attention.out, &dx, self.width)?;
        let heads = self.attention_heads();
        let dqkv = attention_backward(&values.qkv, run.segments, heads, &dattention);
        let dln_1 = backward.linear(&name("attn.c_attn"), &values.ln_1.y, &dqkv, self.width)?;
        let dresidual = backward.norm(&name("ln_1"), &values.residual_1, &values.ln_1, &dln_1)?;
        add(&mut dx, &dresidual);
        Ok(dx)
    }

    fn norm_forward(&self, parameters: &Parameters, name: &str, x: &[f64]) -> Result<LayerNorm> {
        let weight = get(parameters, &format!("{name}.weight"))?;
        let bias = get(parameters, &format!("{name}.bias"))?;
        Ok(layer_norm_forward(x, weight, bias, self.eps))
    }

    fn attention_heads(&self) -> Heads {
        Heads {
            query: self.heads,
            key_value: self.heads,
            width: self.width / self.heads,
        }
    }

    fn score<'a>(&self, parameters: &'a Parameters) -> Result<&'a [f64]> {
        let score = get(parameters, SCORE)?;
        check_size(SCORE, score.len(), self.width)?;
        Ok(score)
    }

    fn check(&self, parameters: &Parameters) -> Result<()> {
        for (name, size) in self.parameter_sizes() {
            check_size(&name, get(parameters, &name)?.len(), size)?;
        }
        Ok(())
    }
}

/// Reads parameters and collects their gradients.
struct Backward<'a> {
    parameters: &'a Parameters,
    gradients: &'a mut Parameters,
}

impl Backward<'_> {
    /// Backward of [`linear_forward`]: gives `dx` from `dy`.
    fn linear(&mut self, name: &str, x: &[f64], dy: &[f64], inputs: usize) -> Result<Vec<f64>> {
        let weight = get(self.parameters, &format!("{name}.weight"))?;
        let sizes = (x.len() / inputs, weight.len() / inputs, inputs);
        let product = matmul_backward(x, weight, dy, Layout::NN, sizes);
        self.gradients.insert(format!("{name}.weight"), product.db);
        self.gradients
            .insert(format!("{name}.bias"), bias_gradient(dy, sizes.1));
        Ok(product.da)
    }

    /// Backward of [`Transformer::norm_forward`]: gives `dx` from `dy`.
    fn norm(&mut self, name: &str, x: &[f64], norm: &LayerNorm, dy: &[f64]) -> Result<Vec<f64>> {
        let weight = get(self.parameters, &format!("{name}.weight"))?;
        let out = layer_norm_backward(x, weight, &norm.mean, &norm.rstd, dy);
        self.gradients.insert(format!("{name}.weight"), out.dweight);
        self.gradients.insert(format!("{name}.bias"), out.dbias);
        Ok(out.dx)
    }
}

/// `y = x·W + b` with `x` `[T, inputs]` and `W` `[inputs, outputs]`.
fn linear_forward(
    parameters: &Parameters,
    name: &str,
    x: &[f64],
    inputs: usize,
) -> Result<Vec<f64>> {
    let weight = get(parameters, &format!("{name}.weight"))?;
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let mut y = matmul(x, weight, Layout::NN, rows, outputs, inputs);
    add_bias(&mut y, get(parameters, &format!("{name}.bias"))?);
    Ok(y)
}

fn layer_name(layer: usize, part: &str) -> String {
    format!("transformer.h.{layer}.{part}")
}

fn add(to: &mut [f64], values: &[f64]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to += value;
    }
}

fn get<'a>(parameters: &'a Parameters, name: &str) -> Result<&'a [f64]> {
    parameters
        .get(name)
        .map(Vec::as_slice)
        .ok_or_else(|| Error::Model {
            place: name.to_owned(),
            detail: "the parameter is missing".to_owned(),
        })
}

fn check_size(name: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Model {
        place: name.to_owned(),
        detail: format!("the parameter has {found} elements instead of {expected}"),
    })
}
