//! Laying token records out as packed batches.

use super::batch::{Answer, Counts, NONE, Pair, Segment, TILE_ROWS, Target, Tile};
use super::entries::Entries;
use super::packed::{Batch, Capacity, RowLists};
use super::tokenise::TokenRecord;
use crate::{Error, Result};

/// Which next-token predictions a batch lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Targets {
    /// None.
    #[default]
    None,
    /// Those of the answers' tokens: what a policy is trained on.
    Answers,
    /// Those of all tokens: the language of the texts.
    All,
}

/// What a batch should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// The model's padding token, which pooling passes over.
    pub pad_token_id: Option<u32>,
    /// Lay answers out in pairs of chosen and rejected, one a preference; responses that no
    /// preference names are left out. Without, one answer a response, in the record's order.
    pub with_pairs: bool,
    /// Which next-token targets to list.
    pub targets: Targets,
    /// Let a record's responses share their prompt. Without, each is a sequence of its own: for
    /// comparison.
    pub share_prompts: bool,
}

impl Default for PackOptions {
    /// Pairs, shared prompts, no padding token, no targets.
    fn default() -> Self {
        Self {
            pad_token_id: None,
            with_pairs: true,
            targets: Targets::None,
            share_prompts: true,
        }
    }
}

/// Fills one batch after another with records, each in the order given.
///
/// The layout is described at [`Batch`] and its parts.
#[derive(Debug, Clone)]
pub struct Packer {
    capacity: Capacity,
    options: PackOptions,
    batch: Batch,
}

impl Packer {
    /// An empty packer for batches of at most `capacity`. Sizes that a `u32` cannot count are
    /// capped.
    pub fn new(capacity: Capacity, options: PackOptions) -> Self {
        let cap = |size: usize| size.min(NONE as usize);
        Self {
            capacity: Capacity {
                tokens: cap(capacity.tokens),
                segments: cap(capacity.segments),
                answers: cap(capacity.answers),
                pairs: cap(capacity.pairs),
                targets: cap(capacity.targets),
            },
            options,
            batch: Batch::default(),
        }
    }

    /// Whether nothing was pushed since the last [`finish`](Self::finish).
    pub fn is_empty(&self) -> bool {
        self.batch.lines.is_empty()
    }

    /// Adds a record, or returns `false`, having added nothing, where what is left of the
    /// capacity does not hold it.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a record that an empty batch does not hold, and for one that breaks
    /// the rules of [`TokenRecord`] or has no preference to make a pair of.
    pub fn try_push(&mut self, record: &TokenRecord) -> Result<bool> {
        let entries = Entries::of(record, self.options.with_pairs)?;
        let need = self.need(record, &entries);
        if let Some(short) = first_over(&need, &self.capacity) {
            return Err(refuse(record.line, short));
        }
        if first_over(&sum(&need, &self.live()), &self.capacity).is_some() {
            return Ok(false);
        }
        self.push(record, &entries);
        Ok(true)
    }

    /// The batch as filled, with each pair's loss to be multiplied by `pair_scale`, each target's
    /// by `target_scale` (usually one over their number in the optimiser step) and results in
    /// `slot`. The packer is empty afterwards.
    pub fn finish(&mut self, pair_scale: f32, target_scale: f32, slot: u32) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.token_lists = RowLists::group(batch.tokens.iter().copied());
        batch.position_lists = RowLists::group(batch.positions.iter().copied());
        batch.pooled_lists = RowLists::group(batch.answers.iter().map(|a| a.pooled_row));
        batch.target_lists = RowLists::group(batch.targets.iter().map(|t| t.row));
        batch.answer_lists = batch.lists_of_answers();
        batch.counts = Counts {
            tokens: batch.tokens.len() as u32,
            segments: batch.segments.len() as u32,
            tiles: batch.tiles.len() as u32,
            answers: batch.answers.len() as u32,
            pairs: batch.pairs.len() as u32,
            targets: batch.targets.len() as u32,
            token_lists: batch.token_lists.lists.len() as u32,
            position_lists: batch.position_lists.lists.len() as u32,
            pooled_lists: batch.pooled_lists.lists.len() as u32,
            target_lists: batch.target_lists.lists.len() as u32,
            slot,
            pair_scale,
            target_scale,
            pad: [0; 3],
        };
        batch
    }

    fn live(&self) -> Capacity {
        Capacity {
            tokens: self.batch.tokens.len(),
            segments: self.batch.segments.len(),
            answers: self.batch.answers.len(),
            pairs: self.batch.pairs.len(),
            targets: self.batch.targets.len(),
        }
    }

    /// What a record takes.
    fn need(&self, record: &TokenRecord, entries: &Entries) -> Capacity {
        let prompt = record.prompt.len();
        let responses = entries.responses.len();
        let own: usize = entries.lengths(record).sum();
        let has_prompt = usize::from(prompt > 0);
        // Each token is predicted but the first of each sequence.
        let (tokens, segments) = if self.options.share_prompts {
            (prompt + own, responses + has_prompt)
        } else {
            (responses * prompt + own, responses)
        };
        let in_prompts = match (self.options.share_prompts, prompt) {
            (_, 0) => 0,
            (true, len) => len - 1,
            (false, len) => responses * (len - 1),
        };
        let in_answers = if prompt > 0 { own } else { own - responses };
        let targets = match self.options.targets {
            Targets::None => 0,
            Targets::Answers => in_answers,
            Targets::All => in_prompts + in_answers,
        };
        Capacity {
            tokens,
            segments,
            answers: entries.answers.len(),
            pairs: entries.answers.len() / 2 * usize::from(self.options.with_pairs),
            targets,
        }
    }

    fn push(&mut self, record: &TokenRecord, entries: &Entries) {
        let first_answer = self.batch.answers.len() as u32;
        let mut placed = vec![Placed::default(); record.answers.len()];
        if self.options.share_prompts {
            self.push_shared(record, entries, first_answer, &mut placed);
        } else {
            self.push_separate(record, entries, first_answer, &mut placed);
        }
        for &index in &entries.answers {
            self.batch.answers.push(Answer {
                pooled_row: placed[index].pooled_row,
                segment: placed[index].segment,
                record: self.batch.lines.len() as u32,
                index: index as u32,
            });
        }
        if self.options.with_pairs {
            let pairs = record.preferences.iter().map(|preference| Pair {
                weight: preference.weight,
                margin: preference.margin,
            });
            self.batch.pairs.extend(pairs);
        }
        self.batch.tokens_without_sharing +=
            entries.responses.len() * record.prompt.len() + entries.lengths(record).sum::<usize>();
        self.batch.lines.push(record.line);
    }

    /// `[prompt | answer | answer | ...]`.
    fn push_shared(
        &mut self,
        record: &TokenRecord,
        entries: &Entries,
        first_answer: u32,
        placed: &mut [Placed],
    ) {
        let prompt_start = self.row();
        let prompt_len = record.prompt.len() as u32;
        let own: usize = entries.lengths(record).sum();
        if prompt_len > 0 {
            self.push_segment(&[&record.prompt], 0, prompt_start, 0);
            if let Some(segment) = self.batch.segments.last_mut() {
                segment.query_end += own as u32;
            }
            let sequences = entries.responses.len() as f32;
            self.predict_within(prompt_start, &record.prompt, NONE, sequences);
            for &index in &entries.responses {
                let answer = first_answer + entries.first[index];
                self.predict(self.row() - 1, record.answers[index][0], answer, 1.0);
            }
        }
        for &index in &entries.responses {
            let start = self.row();
            let answer = &record.answers[index];
            let (prefix_start, prefix_len) = match prompt_len {
                0 => (start, 0),
                len => (prompt_start, len),
            };
            placed[index] = Placed {
                segment: self.batch.segments.len() as u32,
                pooled_row: self.pooled_row(record, prompt_start, index, start),
            };
            self.push_segment(&[answer], prefix_len, prefix_start, prefix_len);
            self.predict_within(start, answer, first_answer + entries.first[index], 1.0);
        }
    }

    /// Each answer behind a prompt of its own, as one segment.
    fn push_separate(
        &mut self,
        record: &TokenRecord,
        entries: &Entries,
        first_answer: u32,
        placed: &mut [Placed],
    ) {
        let prompt = &record.prompt;
        for &index in &entries.responses {
            let start = self.row();
            let answer_start = start + prompt.len() as u32;
            let answer = &record.answers[index];
            placed[index] = Placed {
                segment: self.batch.segments.len() as u32,
                pooled_row: self.pooled_row(record, start, index, answer_start),
            };
            self.push_segment(&[prompt, answer], 0, start, 0);
            let entry = first_answer + entries.first[index];
            self.predict_within(start, prompt, NONE, 1.0);
            if !prompt.is_empty() {
                self.predict(answer_start - 1, answer[0], entry, 1.0);
            }
            self.predict_within(answer_start, answer, entry, 1.0);
        }
    }

    /// The row that the next token takes.
    fn row(&self) -> u32 {
        self.batch.tokens.len() as u32
    }

    fn push_segment(
        &mut self,
        parts: &[&[u32]],
        position: u32,
        prefix_start: u32,
        prefix_len: u32,
    ) {
        let start = self.row();
        let segment = self.batch.segments.len() as u32;
        for part in parts {
            self.batch.tokens.extend_from_slice(part);
        }
        let end = self.row();
        let len = end - start;
        self.batch.segment.resize(end as usize, segment);
        self.batch.positions.extend(position..position + len);
        self.batch.segments.push(Segment {
            start,
            len,
            prefix_start,
            prefix_len,
            position,
            query_end: end,
            pad: [0; 2],
        });
        let tiles = (start..end).step_by(TILE_ROWS as usize);
        self.batch
            .tiles
            .extend(tiles.map(|row| Tile { segment, row }));
    }

    /// See [`Batch::answers`].
    fn pooled_row(
        &self,
        record: &TokenRecord,
        prompt_start: u32,
        index: usize,
        answer_start: u32,
    ) -> u32 {
        let last = |tokens: &[u32], start: u32| {
            tokens
                .iter()
                .rposition(|&token| Some(token) != self.options.pad_token_id)
                .map(|at| start + at as u32)
        };
        let first = if record.prompt.is_empty() {
            answer_start
        } else {
            prompt_start
        };
        last(&record.answers[index], answer_start)
            .or_else(|| last(&record.prompt, prompt_start))
            .unwrap_or(first)
    }

    /// Targets of consecutive rows that predict one another's tokens.
    fn predict_within(&mut self, start: u32, tokens: &[u32], answer: u32, weight: f32) {
        for (row, &token) in (start..).zip(tokens.iter().skip(1)) {
            self.predict(row, token, answer, weight);
        }
    }

    fn predict(&mut self, row: u32, token: u32, answer: u32, weight: f32) {
        let listed = match self.options.targets {
            Targets::None => false,
            Targets::Answers => answer != NONE,
            Targets::All => true,
        };
        if listed {
            self.batch.targets.push(Target {
                row,
                token,
                answer,
                weight,
            });
        }
    }
}

/// Where a response went.
#[derive(Debug, Clone, Copy, Default)]
struct Placed {
    segment: u32,
    pooled_row: u32,
}

fn sum(a: &Capacity, b: &Capacity) -> Capacity {
    Capacity {
        tokens: a.tokens + b.tokens,
        segments: a.segments + b.segments,
        answers: a.answers + b.answers,
        pairs: a.pairs + b.pairs,
        targets: a.targets + b.targets,
    }
}

/// The first of the sizes that exceeds its limit: name, size, limit.
fn first_over(need: &Capacity, limit: &Capacity) -> Option<(&'static str, usize, usize)> {
    [
        ("tokens", need.tokens, limit.tokens),
        ("segments", need.segments, limit.segments),
        ("answers", need.answers, limit.answers),
        ("pairs", need.pairs, limit.pairs),
        ("targets", need.targets, limit.targets),
    ]
    .into_iter()
    .find(|(_, need, limit)| need > limit)
}

fn refuse(line: usize, (name, need, limit): (&'static str, usize, usize)) -> Error {
    Error::Data {
        place: format!("record of line {line}"),
        detail: format!(
            "it takes {need} {name} and a batch holds {limit}: use larger batches, or leave the \
             record out"
        ),
    }
}

/// Packs all records in order, each batch as full as the order allows.
///
/// The batches together count as one step: [`Counts::pair_scale`] is one over the number of
/// records, since the weights of a record's pairs sum to the record's own, and
/// [`Counts::target_scale`] is one over the sum of all targets' weights. The slot is 0.
///
/// # Errors
///
/// As [`Packer::try_push`].
pub fn pack_all<'a>(
    records: impl IntoIterator<Item = &'a TokenRecord>,
    capacity: Capacity,
    options: PackOptions,
) -> Result<Vec<Batch>> {
    let mut packer = Packer::new(capacity, options);
    let mut batches = Vec::new();
    for record in records {
        if !packer.try_push(record)? {
            batches.push(packer.finish(0.0, 0.0, 0));
            packer.try_push(record)?;
        }
    }
    if !packer.is_empty() {
        batches.push(packer.finish(0.0, 0.0, 0));
    }
    let count: usize = batches.iter().map(|batch| batch.lines.len()).sum();
    let targets = batches.iter().flat_map(|batch| &batch.targets);
    let weight: f64 = targets.map(|target| f64::from(target.weight)).sum();
    for batch in &mut batches {
        batch.counts.pair_scale = 1.0 / count as f32;
        batch.counts.target_scale = if weight > 0.0 {
            (1.0 / weight) as f32
        } else {
            0.0
        };
    }
    Ok(batches)
}
