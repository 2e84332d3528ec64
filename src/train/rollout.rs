//! [`RolloutBuffer`]: sampled answers, packed, with what the policy is to learn from each token.

use crate::data::{Batch, Capacity, PackOptions, Packer, RowLists, Targets, TokenRecord};
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::{Experience, Response};
use crate::{Error, Result};

/// Elements that a slot's entries start at a multiple of, so that each can be bound.
const ALIGN: usize = 64;

/// A prompt with its sampled answers and their rewards.
#[derive(Debug, Clone)]
pub struct Group {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// Token ids of each answer.
    pub answers: Vec<Vec<u32>>,
    /// Whether each answer ended by itself.
    pub finished: Vec<bool>,
    /// The reward of each answer.
    pub scores: Vec<f32>,
}

/// One packed micro-batch of a rollout.
pub struct Slot {
    /// (N), of [`Experience`].
    pub experience: Tensor,
    /// (A), of [`Response`].
    pub responses: Tensor,
}

/// Answers of one rollout, packed into slots of one capacity each; every slot keeps its tokens'
/// experience on the device while several epochs learn from it.
pub struct RolloutBuffer {
    capacity: Capacity,
    slots: Vec<Slot>,
    /// (slots, N), of [`Experience`].
    experience: Tensor,
    /// (slots * A), of [`Response`].
    responses: Tensor,
    /// (slots): targets of each slot.
    lens: Tensor,
    /// Answers of fewer tokens than this get a value behind their last one.
    tails_below: usize,
    batches: Vec<Batch>,
    /// The slots of each minibatch.
    minibatches: Vec<Vec<usize>>,
}

/// Capacity of a micro-batch of `tokens` packed tokens with answers to learn from.
pub fn policy_capacity(tokens: usize) -> Capacity {
    let answers = (tokens / 8).max(64).next_multiple_of(ALIGN);
    Capacity {
        tokens,
        segments: 2 * answers,
        answers,
        pairs: answers / 2,
        targets: tokens.next_multiple_of(ALIGN),
    }
}

impl RolloutBuffer {
    /// Room for `minibatches` minibatches of `groups` groups, each of `samples` answers and at most
    /// `group_tokens` tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where a single group does not fit a micro-batch, and as
    /// [`Tensor::zeros`].
    pub fn new(
        gpu: &Gpu,
        capacity: Capacity,
        minibatches: usize,
        groups: usize,
        (samples, group_tokens): (usize, usize),
    ) -> Result<Self> {
        if group_tokens > capacity.tokens || samples > capacity.answers {
            let detail = format!(
                "a prompt and its {samples} answers take up to {group_tokens} tokens, a micro-batch \
                 holds {} tokens and {} answers: raise batch_tokens, or lower samples, \
                 max_new_tokens or the prompts' length",
                capacity.tokens, capacity.answers
            );
            return Err(Error::shape("rollout", detail));
        }
        // A slot is closed when the next group does not fit: two in a row hold more than one
        // capacity of tokens or of answers.
        let full = (groups * group_tokens).div_ceil(capacity.tokens)
            + (groups * samples).div_ceil(capacity.answers);
        let slots = minibatches * (2 * full + 1).min(groups);
        let experience =
            Tensor::zeros::<Experience>(gpu, "experience", &[slots, capacity.targets])?;
        let responses = Tensor::zeros::<Response>(gpu, "responses", &[slots * capacity.answers])?;
        Ok(Self {
            slots: (0..slots)
                .map(|slot| {
                    let (targets, answers) = (capacity.targets, capacity.answers);
                    Ok(Slot {
                        experience: experience.window(
                            "experience of a slot",
                            slot * targets,
                            &[targets],
                        )?,
                        responses: responses.window(
                            "responses of a slot",
                            slot * answers,
                            &[answers],
                        )?,
                    })
                })
                .collect::<Result<_>>()?,
            capacity,
            experience,
            responses,
            lens: Tensor::zeros::<u32>(gpu, "targets of slots", &[slots])?,
            tails_below: 0,
            batches: Vec::new(),
            minibatches: Vec::new(),
        })
    }

    /// Gives answers of fewer than `tokens` tokens one more target, of weight 0, behind their last
    /// token: where TRL puts the reward of such an answer. The capacity must have room for a
    /// target more an answer.
    #[must_use]
    pub fn with_tails_below(mut self, tokens: usize) -> Self {
        self.tails_below = tokens;
        self
    }

    /// All slots, in use or not.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// (slots, N), of [`Experience`].
    pub fn experience(&self) -> &Tensor {
        &self.experience
    }

    /// (slots * A), of [`Response`].
    pub fn responses(&self) -> &Tensor {
        &self.responses
    }

    /// (slots): how many targets each holds.
    pub fn lens(&self) -> &Tensor {
        &self.lens
    }

    /// The packed micro-batches in use, by slot.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The slots of each minibatch.
    pub fn minibatches(&self) -> &[Vec<usize>] {
        &self.minibatches
    }

    /// Packs groups, in `minibatches` parts whose sizes differ by one at most (of fewer groups, one
    /// part each), and writes their scores; `weight` gives the weight of each token of an answer of
    /// so many tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for an answer without tokens or a group that does not fit;
    /// [`Error::Shape`] for more groups, samples or tokens than the buffer was made for.
    pub fn fill(
        &mut self,
        gpu: &Gpu,
        groups: &[Group],
        minibatches: usize,
        weight: impl Fn(usize) -> f32,
    ) -> Result<()> {
        let options = PackOptions {
            with_pairs: false,
            targets: Targets::Answers,
            ..PackOptions::default()
        };
        self.batches.clear();
        self.minibatches.clear();
        let mut responses = vec![Response::default(); self.responses.len()];
        let parts = minibatches.clamp(1, groups.len().max(1));
        for part in 0..parts {
            let start = part * groups.len() / parts;
            let groups = &groups[start..(part + 1) * groups.len() / parts];
            let mut packer = Packer::new(self.capacity, options);
            let mut slots = vec![self.batches.len()];
            let mut first = 0;
            for (index, group) in groups.iter().enumerate() {
                let record = TokenRecord {
                    line: start + index + 1,
                    prompt: group.prompt.clone(),
                    answers: group.answers.clone(),
                    preferences: Vec::new(),
                };
                if !packer.try_push(&record)? {
                    self.close(packer.finish(0.0, 0.0, 0), &weight)?;
                    slots.push(self.batches.len());
                    first = 0;
                    packer.try_push(&record)?;
                }
                let place = self.batches.len() * self.capacity.answers + first;
                let own = responses.get_mut(place..).unwrap_or_default();
                for (score, response) in group.scores.iter().zip(own) {
                    response.score = *score;
                    response.group_start = place as u32;
                    response.group_len = group.answers.len() as u32;
                }
                first += group.answers.len();
            }
            self.close(packer.finish(0.0, 0.0, 0), &weight)?;
            self.minibatches.push(slots);
        }
        let lens: Vec<u32> = self.batches.iter().map(|b| b.counts.targets).collect();
        let mut padded = vec![0; self.slots.len()];
        padded[..lens.len()].copy_from_slice(&lens);
        self.lens.write(gpu, &padded)?;
        self.responses.write(gpu, &responses)
    }

    fn close(&mut self, mut batch: Batch, weight: impl Fn(usize) -> f32) -> Result<()> {
        if self.batches.len() == self.slots.len() {
            let detail = format!("more than {} micro-batches", self.slots.len());
            return Err(Error::shape("rollout", detail));
        }
        for list in &batch.answer_lists.lists {
            let (start, end) = (list.start as usize, list.end as usize);
            let factor = weight(end - start);
            for &target in &batch.answer_lists.rows[start..end] {
                batch.targets[target as usize].weight = factor;
            }
        }
        batch.add_tails(0, |tokens| tokens < self.tails_below);
        self.batches.push(batch);
        Ok(())
    }

    /// Reads the experience of each answer in use, token by token, in the order of the groups.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn read_experience(&self, gpu: &Gpu) -> Result<Vec<Vec<Experience>>> {
        let all: Vec<Experience> = self.experience.read(gpu)?;
        let by_slot = all.chunks(self.capacity.targets).zip(&self.batches);
        Ok(by_slot
            .flat_map(|(experience, batch)| {
                let RowLists { lists, rows } = &batch.answer_lists;
                lists.iter().map(|list| {
                    let own = &rows[list.start as usize..list.end as usize];
                    own.iter()
                        .map(|&target| experience[target as usize])
                        .collect()
                })
            })
            .collect())
    }

    /// Reads what the device knows of each response in use, in the order of the groups.
    ///
    /// # Errors
    ///
    /// What the device reports.
    pub fn read_responses(&self, gpu: &Gpu) -> Result<Vec<Response>> {
        let all: Vec<Response> = self.responses.read(gpu)?;
        let by_slot = all.chunks(self.capacity.answers).zip(&self.batches);
        Ok(by_slot
            .flat_map(|(responses, batch)| &responses[..batch.answers.len()])
            .copied()
            .collect())
    }
}
