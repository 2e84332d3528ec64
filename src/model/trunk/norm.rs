//! The norms of the residual stream: LayerNorm or RMSNorm, forward and backward.

use super::Trunk;
use crate::Result;
use crate::gpu::{Plan, Tensor};
use crate::kernels::nn::layer_norm::{
    InputGradient, LayerNormBackwardIo, LayerNormIo, LayerNormSizes, layer_norm_backward,
    layer_norm_forward,
};
use crate::kernels::nn::rms_norm::{
    RmsNormBackwardIo, RmsNormIo, RmsNormSizes, rms_norm_backward, rms_norm_forward,
};
use crate::model::Parameters;
use crate::model::activations::Norm;

impl Trunk {
    fn layer_norm_sizes(&self) -> LayerNormSizes {
        LayerNormSizes {
            rows: self.rows(),
            columns: self.config.hidden_size,
            eps: self.config.norm_eps as f32,
        }
    }

    fn rms_norm_sizes(&self) -> RmsNormSizes {
        RmsNormSizes {
            rows: self.rows(),
            columns: self.config.hidden_size,
            eps: self.config.norm_eps as f32,
        }
    }

    /// Appends the norm `name` of x.
    pub(super) fn norm_forward(
        &self,
        plan: &mut Plan,
        (parameters, counts): (&Parameters, &Tensor),
        name: &str,
        (x, norm): (&Tensor, &Norm),
    ) -> Result<()> {
        let weight = &parameters.whole(&format!("{name}.weight"))?.weight;
        let (y, rstd, counts) = (&norm.y, &norm.rstd, Some(counts));
        let Some(mean) = &norm.mean else {
            let io = RmsNormIo {
                x,
                weight,
                y,
                rstd,
                counts,
            };
            return rms_norm_forward(plan, &io, &self.rms_norm_sizes());
        };
        let io = LayerNormIo {
            x,
            weight,
            bias: &parameters.whole(&format!("{name}.bias"))?.weight,
            y,
            mean,
            rstd,
            counts,
        };
        layer_norm_forward(plan, &io, &self.layer_norm_sizes())
    }

    /// Appends the backward pass of the norm `name` into the residual stream's gradient.
    pub(super) fn norm_backward(
        &self,
        plan: &mut Plan,
        (parameters, counts): (&Parameters, &Tensor),
        name: &str,
        (x, norm): (&Tensor, &Norm),
        (dy, input): (&Tensor, InputGradient),
    ) -> Result<()> {
        let gradients = self.gradients()?;
        let window = parameters.whole(&format!("{name}.weight"))?;
        let (weight, dweight) = (&window.weight, &window.gradient);
        let (dx, partials) = (&gradients.stream, &gradients.partials);
        let (rstd, counts) = (&norm.rstd, Some(counts));
        let Some(mean) = &norm.mean else {
            let io = RmsNormBackwardIo {
                x,
                weight,
                rstd,
                dy,
                dx,
                dweight,
                partials,
                counts,
            };
            return rms_norm_backward(plan, &io, &self.rms_norm_sizes(), input);
        };
        let io = LayerNormBackwardIo {
            x,
            weight,
            mean,
            rstd,
            dy,
            dx,
            dweight,
            dbias: &parameters.whole(&format!("{name}.bias"))?.gradient,
            partials,
            counts,
        };
        layer_norm_backward(plan, &io, &self.layer_norm_sizes(), input)
    }
}
