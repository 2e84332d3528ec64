//! Which sequences are generated at one time, and their results.

use super::{Completion, Finish, GenerateOptions, GeneratorCapacity, Request};
use crate::data::batch::TILE_ROWS;
use crate::data::{Batch, Counts, Segment, Tile};
use crate::kernels::nn::attention_decode::Sequence;
use crate::kernels::nn::copy_rows::RowCopy;
use crate::kernels::policy::sample::Sampled;
use crate::model::ModelConfig;
use crate::{Error, Result};

/// Prompts and sequences that fit the generator together.
#[derive(Default)]
pub(super) struct Wave {
    /// The prompts, packed.
    pub prompts: Batch,
    /// The sequences as they start.
    pub sequences: Vec<Sequence>,
    /// Where each sequence's first token is predicted.
    pub last_rows: Vec<RowCopy>,
    /// Which request's which response each sequence is.
    responses: Vec<(usize, usize)>,
}

/// Distributes the requests' responses over waves, in order.
///
/// # Errors
///
/// [`Error::Data`] for a prompt that can't be continued.
pub(super) fn waves(
    requests: &[Request<'_>],
    capacity: GeneratorCapacity,
    config: &ModelConfig,
    options: &GenerateOptions,
) -> Result<Vec<Wave>> {
    for (index, request) in requests.iter().enumerate() {
        check(request, capacity, config, options.max_new_tokens).map_err(|detail| Error::Data {
            place: format!("prompt {index}"),
            detail,
        })?;
    }
    let mut waves = Vec::new();
    let mut wave = Wave::default();
    for (index, request) in requests.iter().enumerate() {
        let mut sample = 0;
        while sample < request.samples {
            if !wave.has_room(request, capacity) {
                waves.push(std::mem::take(&mut wave).finished());
            }
            let room = capacity.sequences - wave.sequences.len();
            let end = request.samples.min(sample + room);
            wave.push(index, request, sample..end, capacity);
            sample = end;
        }
    }
    if !wave.sequences.is_empty() {
        waves.push(wave.finished());
    }
    Ok(waves)
}

fn check(
    request: &Request<'_>,
    capacity: GeneratorCapacity,
    config: &ModelConfig,
    max_new_tokens: usize,
) -> Result<(), String> {
    let (len, context) = (request.prompt.len(), config.max_position_embeddings);
    if request.samples == 0 {
        return Err("it asks for 0 responses".into());
    }
    if len == 0 {
        return Err("it has no tokens: begin with the token that starts a text".into());
    }
    if len + max_new_tokens > context {
        return Err(format!(
            "its {len} tokens and an answer of {max_new_tokens} pass the context of {context}: \
             shorten the prompt or lower max_new_tokens"
        ));
    }
    if len > capacity.prompt_tokens {
        return Err(format!(
            "it has {len} tokens, the generator was made for {}",
            capacity.prompt_tokens
        ));
    }
    let unknown = |token: &&u32| **token as usize >= config.vocab_size;
    match request.prompt.iter().find(unknown) {
        None => Ok(()),
        Some(token) => Err(format!(
            "token {token} is outside the vocabulary of {}",
            config.vocab_size
        )),
    }
}

impl Wave {
    /// Whether the prompt and one response at least fit.
    fn has_room(&self, request: &Request<'_>, capacity: GeneratorCapacity) -> bool {
        self.sequences.len() < capacity.sequences
            && self.prompts.segments.len() < capacity.prompts
            && self.prompts.tokens.len() + request.prompt.len() <= capacity.prompt_tokens
    }

    fn push(
        &mut self,
        index: usize,
        request: &Request<'_>,
        samples: std::ops::Range<usize>,
        capacity: GeneratorCapacity,
    ) {
        let batch = &mut self.prompts;
        let (start, len) = (batch.tokens.len() as u32, request.prompt.len() as u32);
        let (end, segment) = (start + len, batch.segments.len() as u32);
        batch.tokens.extend_from_slice(request.prompt);
        batch.positions.extend(0..len);
        batch.segments.push(Segment {
            start,
            len,
            query_end: end,
            ..Segment::default()
        });
        let tiles = (start..end).step_by(TILE_ROWS as usize);
        batch.tiles.extend(tiles.map(|row| Tile { segment, row }));
        for sample in samples {
            let slot = self.sequences.len();
            let id = request.first_sequence.wrapping_add(sample as u64);
            self.sequences.push(Sequence {
                prefix_start: start,
                prefix_len: len,
                start: (capacity.prompt_tokens + slot * capacity.new_tokens) as u32,
                id_low: id as u32,
                id_high: (id >> 32) as u32,
                ..Sequence::default()
            });
            self.last_rows.push(RowCopy {
                source: end - 1,
                destination: slot as u32,
            });
            self.responses.push((index, sample));
        }
    }

    fn finished(mut self) -> Self {
        self.prompts.counts = Counts {
            tokens: self.prompts.tokens.len() as u32,
            segments: self.prompts.segments.len() as u32,
            tiles: self.prompts.tiles.len() as u32,
            ..Counts::default()
        };
        self
    }

    /// The responses, from what the device holds after the last step.
    ///
    /// # Errors
    ///
    /// [`Error::Model`] where a sequence stopped at logits that are not finite.
    pub fn completions(
        &self,
        sequences: &[Sequence],
        sampled: &[Sampled],
        new_tokens: usize,
    ) -> Result<Vec<Completion>> {
        let rows = sequences.iter().zip(sampled.chunks(new_tokens));
        self.responses
            .iter()
            .zip(rows)
            .map(|(&(prompt, sample), (sequence, row))| {
                let drawn = &row[..sequence.len as usize];
                let finish = match sequence.finished {
                    1 => Some(Finish::Stop),
                    2 => Some(Finish::Length),
                    _ => None,
                };
                let finish = finish
                    .filter(|_| drawn.iter().all(|token| token.logprob.is_finite()))
                    .ok_or_else(|| Error::Model {
                        place: format!("prompt {prompt}, response {sample}"),
                        detail: format!(
                            "after {} tokens the logits are not finite: the model's weights are \
                             damaged or diverged",
                            drawn.len()
                        ),
                    })?;
                Ok(Completion {
                    prompt,
                    sample,
                    tokens: drawn.iter().map(|token| token.token).collect(),
                    logprobs: drawn.iter().map(|token| token.logprob).collect(),
                    sampling_logprobs: drawn.iter().map(|t| t.sampling_logprob).collect(),
                    finish,
                })
            })
            .collect()
    }
}
