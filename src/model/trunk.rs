//! [`Trunk`]: the GPT-2 decoder from tokens to the final norm, forward and backward.
//!
//! Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3; the
//! names of layers are those of `transformers`' GPT-2. Shapes: T packed tokens, C width.

mod forward;

pub(super) use forward::Rows;

use super::activations::{Activations, Block, Gradients, Norm};
use super::{DeviceBatch, Gpt2Config, Parameters, Window};
use crate::Result;
use crate::data::Capacity;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::nn::attention::{
    AttentionBackwardIo, AttentionSizes, Heads, attention_backward,
};
use crate::kernels::nn::bias_gradient::{
    BiasGradientIo, bias_gradient, bias_gradient_partials_len,
};
use crate::kernels::nn::embedding::{
    EmbeddingBackwardIo, Window as TableWindow, embedding_backward,
};
use crate::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormSizes, layer_norm_backward,
    layer_norm_partials_len,
};
use crate::kernels::nn::matmul::{Epilogue, Layout, MatmulIo, MatmulSizes, Matrix, matmul};
use crate::kernels::{Count, Size};

/// What a trunk is for: scoring alone keeps no activations for a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward only.
    Score,
    /// Forward and backward.
    Train,
}

/// The decoder's activations and gradients for one capacity.
pub struct Trunk {
    config: Gpt2Config,
    capacity: Capacity,
    activations: Activations,
    gradients: Option<Gradients>,
}

/// The tensors of one linear layer.
struct Linear<'a> {
    weight: &'a Window,
    bias: &'a Window,
    inputs: usize,
    outputs: usize,
}

impl Trunk {
    /// Allocates activations, and gradients where it is to be trained.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn new(
        gpu: &Gpu,
        config: &Gpt2Config,
        capacity: Capacity,
        purpose: Purpose,
    ) -> Result<Self> {
        let tokens = capacity.tokens;
        let (sets, gradients) = match purpose {
            Purpose::Score => (config.n_layer.min(2), None),
            Purpose::Train => {
                let widest = config.inner().max(3 * config.n_embd);
                let partials = layer_norm_partials_len(tokens, config.n_embd)
                    .max(bias_gradient_partials_len(tokens, widest));
                let gradients = Gradients::new(gpu, config, tokens, partials)?;
                (config.n_layer, Some(gradients))
            }
        };
        Ok(Self {
            config: config.clone(),
            capacity,
            activations: Activations::new(gpu, config, tokens, sets)?,
            gradients,
        })
    }

    /// (T, C): the final norm's output.
    pub fn hidden(&self) -> &Tensor {
        &self.activations.ln_f.y
    }

    /// (T, C): where a head writes the gradient of [`Trunk::hidden`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Shape`] for a trunk made to score.
    pub fn hidden_gradient(&self) -> Result<&Tensor> {
        Ok(&self.gradients()?.hidden)
    }

    fn gradients(&self) -> Result<&Gradients> {
        self.gradients
            .as_ref()
            .ok_or_else(|| crate::Error::shape("trunk", "it was made to score, not to train"))
    }

    pub(super) fn rows(&self) -> Size {
        Size::live(self.capacity.tokens, Count::Tokens)
    }

    fn norm_sizes(&self) -> LayerNormSizes {
        LayerNormSizes {
            rows: self.rows(),
            columns: self.config.n_embd,
            eps: self.config.layer_norm_epsilon as f32,
        }
    }

    /// The heads of each layer's attention.
    pub(super) fn heads(&self) -> Heads {
        Heads {
            query: self.config.n_head,
            key_value: self.config.n_head,
            width: self.config.head_width(),
        }
    }

    fn attention_sizes(&self) -> AttentionSizes {
        AttentionSizes {
            tokens: self.capacity.tokens,
            tiles: Size::live(self.capacity.tiles(), Count::Tiles),
            heads: self.heads(),
            // Half of a context a token: what a batch of full sequences has.
            attended: self.capacity.tokens as u64 * self.config.n_positions as u64 / 2,
        }
    }

    /// Appends the backward pass from [`Trunk::hidden_gradient`] to the parameters' gradients,
    /// which it adds to.
    ///
    /// # Errors
    ///
    /// What the kernels refuse; [`crate::Error::Shape`] for a trunk made to score.
    pub fn backward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        batch: &DeviceBatch,
    ) -> Result<()> {
        let gradients = self.gradients()?;
        let last = self.activations.entering(self.config.n_layer);
        self.norm_backward(
            plan,
            parameters,
            batch,
            "transformer.ln_f",
            (last, &self.activations.ln_f),
            (&gradients.hidden, InputGradient::Overwrite),
        )?;
        for layer in (0..self.config.n_layer).rev() {
            self.backward_block(plan, parameters, batch, layer)?;
        }
        let (dx, counts) = (&gradients.stream, Some(&batch.counts));
        for window in parameters.windows("transformer.wte.weight")? {
            let io = EmbeddingBackwardIo {
                dout: dx,
                lists: &batch.token_lists.lists,
                list_rows: &batch.token_lists.rows,
                dtable: &window.gradient,
                counts,
            };
            let lists = Size::live(self.capacity.tokens, Count::TokenLists);
            embedding_backward(plan, &io, lists, table_window(window))?;
        }
        let positions = parameters.whole("transformer.wpe.weight")?;
        let io = EmbeddingBackwardIo {
            dout: dx,
            lists: &batch.position_lists.lists,
            list_rows: &batch.position_lists.rows,
            dtable: &positions.gradient,
            counts,
        };
        let lists = Size::live(self.capacity.tokens, Count::PositionLists);
        embedding_backward(plan, &io, lists, table_window(positions))
    }

    fn backward_block(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        batch: &DeviceBatch,
        layer: usize,
    ) -> Result<()> {
        let name = |part: &str| format!("transformer.h.{layer}.{part}");
        let gradients = self.gradients()?;
        let block = self.activations.block(layer);
        let stream = &gradients.stream;

        let c_proj = self.linear(parameters, &name("mlp.c_proj"))?;
        let epilogue = Epilogue::GeluBackward { pre: &block.pre };
        self.linear_backward(
            plan,
            batch,
            &c_proj,
            &block.act,
            stream,
            (&gradients.pre, epilogue),
        )?;
        let c_fc = self.linear(parameters, &name("mlp.c_fc"))?;
        let into = (&gradients.normed, Epilogue::Store);
        self.linear_backward(plan, batch, &c_fc, &block.ln_2.y, &gradients.pre, into)?;
        let input = (&block.middle, &block.ln_2);
        let dy = (&gradients.normed, InputGradient::Add);
        self.norm_backward(plan, parameters, batch, &name("ln_2"), input, dy)?;

        let c_proj = self.linear(parameters, &name("attn.c_proj"))?;
        let into = (&gradients.attended, Epilogue::Store);
        self.linear_backward(plan, batch, &c_proj, &block.attended, stream, into)?;
        self.attention_backward(plan, batch, block)?;
        let c_attn = self.linear(parameters, &name("attn.c_attn"))?;
        let into = (&gradients.normed, Epilogue::Store);
        self.linear_backward(plan, batch, &c_attn, &block.ln_1.y, &gradients.qkv, into)?;
        let input = (self.activations.entering(layer), &block.ln_1);
        let dy = (&gradients.normed, InputGradient::Add);
        self.norm_backward(plan, parameters, batch, &name("ln_1"), input, dy)
    }

    fn attention_backward(
        &self,
        plan: &mut Plan,
        batch: &DeviceBatch,
        block: &Block,
    ) -> Result<()> {
        let gradients = self.gradients()?;
        attention_backward(
            plan,
            &AttentionBackwardIo {
                qkv: &block.qkv,
                segments: &batch.segments,
                tiles: &batch.tiles,
                out: &block.attended,
                lse: &block.lse,
                dout: &gradients.attended,
                delta: &gradients.delta,
                dqkv: &gradients.qkv,
                counts: Some(&batch.counts),
            },
            &self.attention_sizes(),
        )
    }

    /// Backward of a norm into the residual stream's gradient.
    fn norm_backward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        batch: &DeviceBatch,
        name: &str,
        (x, norm): (&Tensor, &Norm),
        (dy, input_gradient): (&Tensor, InputGradient),
    ) -> Result<()> {
        let gradients = self.gradients()?;
        let weight = parameters.whole(&format!("{name}.weight"))?;
        let io = LayerNormBackwardIo {
            x,
            weight: &weight.weight,
            mean: &norm.mean,
            rstd: &norm.rstd,
            dy,
            dx: &gradients.stream,
            dweight: &weight.gradient,
            dbias: &parameters.whole(&format!("{name}.bias"))?.gradient,
            partials: &gradients.partials,
            counts: Some(&batch.counts),
        };
        layer_norm_backward(plan, &io, &self.norm_sizes(), input_gradient)
    }

    fn linear<'a>(&self, parameters: &'a Parameters, name: &str) -> Result<Linear<'a>> {
        let weight = parameters.whole(&format!("{name}.weight"))?;
        let shape = weight.weight.shape();
        Ok(Linear {
            weight,
            bias: parameters.whole(&format!("{name}.bias"))?,
            inputs: shape[0],
            outputs: shape[1],
        })
    }

    /// `dW += xᵀ dy`, `db += Σ rows of dy`, `dx = epilogue(dy Wᵀ)`.
    fn linear_backward(
        &self,
        plan: &mut Plan,
        batch: &DeviceBatch,
        linear: &Linear<'_>,
        x: &Tensor,
        dy: &Tensor,
        (dx, epilogue): (&Tensor, Epilogue<'_>),
    ) -> Result<()> {
        let counts = Some(&batch.counts);
        let io = MatmulIo {
            a: Matrix::whole(x),
            b: Matrix::whole(dy),
            out: Matrix::whole(&linear.weight.gradient),
            epilogue: Epilogue::Add,
            counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Tn,
            m: Size::fixed(linear.inputs),
            n: linear.outputs,
            k: self.rows(),
        };
        matmul(plan, &io, &sizes)?;
        let io = BiasGradientIo {
            dy,
            dbias: &linear.bias.gradient,
            partials: &self.gradients()?.partials,
            counts,
        };
        bias_gradient(plan, &io, self.rows(), linear.outputs)?;
        let io = MatmulIo {
            a: Matrix::whole(dy),
            b: Matrix::whole(&linear.weight.weight),
            out: Matrix::whole(dx),
            epilogue,
            counts,
        };
        let sizes = MatmulSizes {
            layout: Layout::Nt,
            m: self.rows(),
            n: linear.inputs,
            k: Size::fixed(linear.outputs),
        };
        matmul(plan, &io, &sizes)
    }
}

/// The rows of a table that a parameter's window holds.
fn table_window(window: &Window) -> TableWindow {
    TableWindow {
        first_row: window.first_row,
        rows: window.weight.shape()[0],
    }
}
