//! [`LanguageHead`]: next-token log-probabilities on top of a trunk, and their backward pass.

use super::{DeviceBatch, ModelConfig, Parameters, Purpose, Trunk};
use crate::Result;
use crate::data::Capacity;
use crate::gpu::{Gpu, Plan, Tensor};
use crate::kernels::nn::cross_entropy::{
    CrossEntropyGradients, CrossEntropyIo, HeadWindow, cross_entropy,
};
use crate::kernels::nn::cross_entropy_statistics::{
    CrossEntropyStatisticsIo, cross_entropy_statistics,
};
use crate::kernels::policy::token_logprob::{
    TokenLogprobBackwardIo, TokenLogprobIo, token_logprob_backward, token_logprob_forward,
};

/// The language head's rows, in windows that each fit a binding: the token table, or a head of its
/// own where the two are not tied.
///
/// # Errors
///
/// [`crate::Error::Model`] if the parameters have no such head.
pub fn head_windows<'a>(
    config: &ModelConfig,
    parameters: &'a Parameters,
) -> Result<Vec<HeadWindow<'a>>> {
    let name = if config.tie_word_embeddings {
        "transformer.wte.weight"
    } else {
        "lm_head.weight"
    };
    let windows = parameters.windows(name)?.iter();
    Ok(windows
        .map(|window| HeadWindow {
            weight: &window.weight,
            dweight: (!window.gradient.is_empty()).then_some(&window.gradient),
            first_row: window.first_row,
        })
        .collect())
}

/// Buffers of the language head, for one capacity.
///
/// Logits exist for `chunk` targets at a time. Where they exist for all of a batch's targets, the
/// backward pass of [`LanguageHead::backward`] reads them again; otherwise it computes them anew.
pub struct LanguageHead {
    config: ModelConfig,
    /// (chunk, C)
    gathered: Tensor,
    /// (chunk, V rounded up to a multiple of 4)
    logits: Tensor,
    /// (N, C), empty where nothing is trained.
    dgathered: Tensor,
}

impl LanguageHead {
    /// Allocates the buffers, the logits within `logits_bytes` (one target's at least).
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn new(
        gpu: &Gpu,
        config: &ModelConfig,
        capacity: Capacity,
        purpose: Purpose,
        logits_bytes: u64,
    ) -> Result<Self> {
        let (width, targets) = (config.hidden_size, capacity.targets);
        let vocabulary = config.vocab_size.next_multiple_of(4);
        let bytes = logits_bytes.min(gpu.limits().max_storage_buffer_binding_size);
        let fitting = (bytes / (4 * vocabulary as u64)) as usize;
        let chunk = fitting.min(targets).max(1);
        let scratch = |label: &str, shape: &[usize]| Tensor::zeros::<f32>(gpu, label, shape);
        let trained = match purpose {
            Purpose::Score => 0,
            Purpose::Train => targets,
        };
        Ok(Self {
            config: config.clone(),
            gathered: scratch("gathered", &[chunk, width])?,
            logits: scratch("logits", &[chunk, vocabulary])?,
            dgathered: scratch("d gathered", &[trained, width])?,
        })
    }

    /// Appends the log-probability and entropy of every target, from the trunk's hidden states.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn forward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        (trunk, batch): (&Trunk, &DeviceBatch),
        logprobs: &Tensor,
        temperature: f32,
    ) -> Result<()> {
        let windows = head_windows(&self.config, parameters)?;
        let io = self.io(&windows, (trunk, batch), logprobs);
        token_logprob_forward(plan, &io, temperature)
    }

    /// Appends the way back from the gradients of log-probabilities and entropies (N, of
    /// [`TokenGradient`](crate::kernels::policy::TokenGradient)) to the trunk's hidden states and
    /// the head. Only valid right after [`LanguageHead::forward`] of the same batch.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn backward(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        (trunk, batch): (&Trunk, &DeviceBatch),
        (logprobs, gradients): (&Tensor, &Tensor),
        temperature: f32,
    ) -> Result<()> {
        let windows = head_windows(&self.config, parameters)?;
        let io = TokenLogprobBackwardIo {
            forward: self.io(&windows, (trunk, batch), logprobs),
            gradients,
            target_lists: &batch.target_lists.lists,
            dgathered: &self.dgathered,
            dhidden: trunk.hidden_gradient()?,
        };
        token_logprob_backward(plan, &io, temperature)
    }

    fn io<'a>(
        &'a self,
        windows: &'a [HeadWindow<'a>],
        (trunk, batch): (&'a Trunk, &'a DeviceBatch),
        logprobs: &'a Tensor,
    ) -> TokenLogprobIo<'a> {
        TokenLogprobIo {
            hidden: trunk.hidden(),
            head_windows: windows,
            targets: &batch.targets,
            gathered: &self.gathered,
            logits: &self.logits,
            logprobs,
            counts: Some(&batch.counts),
        }
    }

    /// Appends the next-token cross-entropy of every target, its figures as a row of `metrics`,
    /// and the way back to the trunk's hidden states and the head, in one sweep.
    ///
    /// `logprobs` is (N, f32), written.
    ///
    /// # Errors
    ///
    /// What the kernels refuse.
    pub fn cross_entropy(
        &self,
        plan: &mut Plan,
        parameters: &Parameters,
        (trunk, batch): (&Trunk, &DeviceBatch),
        logprobs: &Tensor,
        metrics: &Tensor,
    ) -> Result<()> {
        let counts = Some(&batch.counts);
        cross_entropy(
            plan,
            &CrossEntropyIo {
                hidden: trunk.hidden(),
                head_windows: &head_windows(&self.config, parameters)?,
                targets: &batch.targets,
                gathered: &self.gathered,
                logits: &self.logits,
                logprobs,
                gradients: Some(CrossEntropyGradients {
                    target_lists: &batch.target_lists.lists,
                    dgathered: &self.dgathered,
                    dhidden: trunk.hidden_gradient()?,
                }),
                counts,
            },
            1.0,
        )?;
        cross_entropy_statistics(
            plan,
            &CrossEntropyStatisticsIo {
                targets: &batch.targets,
                logprobs,
                metrics,
                counts,
            },
            1.0,
        )
    }
}
