//! [`Batch`]: a packed run with everything that kernels need to know about it.
//!
//! A batch is one run of tokens without padding. Each record stands as
//! `[prompt | answer 1 | answer 2 | ...]`; a prompt is a segment, each answer is one, and an
//! answer attends to its prompt and to itself at positions that follow the prompt. An empty
//! prompt makes no segment. The rewards and gradients are those of separate sequences (the same
//! sharing for DPO: arXiv 2410.20305).

use std::collections::BTreeMap;

use super::batch::{Answer, Counts, Pair, RowList, Segment, TILE_ROWS, Target, Tile};

/// Indices grouped by an id, so that a backward pass can sum each group in a fixed order without
/// atomics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowLists {
    /// One list a distinct id, ids ascending.
    pub lists: Vec<RowList>,
    /// The entries of all lists, ascending in each.
    pub rows: Vec<u32>,
}

impl RowLists {
    /// Groups the indices of `ids` by id.
    pub(super) fn group(ids: impl Iterator<Item = u32>) -> Self {
        let mut entries: Vec<(u32, u32)> = ids.zip(0..).collect();
        entries.sort_unstable();
        let mut lists: Vec<RowList> = Vec::new();
        for (at, &(id, _)) in (0..).zip(&entries) {
            match lists.last_mut() {
                Some(list) if list.id == id => list.end = at + 1,
                _ => lists.push(RowList {
                    id,
                    start: at,
                    end: at + 1,
                    pad: 0,
                }),
            }
        }
        Self {
            lists,
            rows: entries.into_iter().map(|(_, index)| index).collect(),
        }
    }
}

/// The most that a batch may hold, and what buffers are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    /// Rows of the packed run.
    pub tokens: usize,
    /// Segments.
    pub segments: usize,
    /// Answers.
    pub answers: usize,
    /// Pairs.
    pub pairs: usize,
    /// Targets.
    pub targets: usize,
}

impl Capacity {
    /// The most tiles that so many tokens and segments can have.
    pub fn tiles(&self) -> usize {
        self.tokens.div_ceil(TILE_ROWS as usize) + self.segments
    }
}

/// A packed batch, made by [`Packer`](super::Packer).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// `[T]` token ids.
    pub tokens: Vec<u32>,
    /// `[T]` the segment of each row.
    pub segment: Vec<u32>,
    /// `[T]` the position of each row in its sequence.
    pub positions: Vec<u32>,
    /// `[S]` segments, by first row.
    pub segments: Vec<Segment>,
    /// Tiles, by first row.
    pub tiles: Vec<Tile>,
    /// `[A]` answers; with pairs `A = 2P`, pair `p` being answers `2p` (chosen) and `2p + 1`
    /// (rejected). Several entries may stand for one response; its tokens are there once.
    ///
    /// The pooled row is that of the last token of prompt and answer that is not the padding
    /// token (the last one where there is no padding token, the first where all are padding), as
    /// the sequence classifiers of `transformers` have it. It may lie in the prompt and may serve
    /// several answers.
    pub answers: Vec<Answer>,
    /// `[P]` pairs.
    pub pairs: Vec<Pair>,
    /// `[N]` next-token predictions, by row, those of one row in the order of the responses.
    ///
    /// The last row of a prompt predicts the first token of every response. A target's answer is
    /// the first entry of the response in [`answers`](Self::answers). Its weight says in how many
    /// of the separate sequences the prediction stands: within a shared prompt the number of
    /// responses, elsewhere 1. So weighted, the loss is that of the separate sequences.
    pub targets: Vec<Target>,
    /// Token id to the rows that hold it.
    pub token_lists: RowLists,
    /// Position to the rows at it.
    pub position_lists: RowLists,
    /// Pooled row to the answers that pool there.
    pub pooled_lists: RowLists,
    /// Row to its targets.
    pub target_lists: RowLists,
    /// One list an answer, empty or not: its targets in the order of its tokens. Several entries
    /// for one response have equal lists.
    pub answer_lists: RowLists,
    /// The live sizes.
    pub counts: Counts,
    /// The line of each record, for [`Answer::record`] and for messages.
    pub lines: Vec<usize>,
    /// The tokens that the same responses cost as separate sequences.
    pub tokens_without_sharing: usize,
}

impl Batch {
    /// Adds a target of weight 0 to the end of each answer's list for which `wanted`, given the
    /// list's length, holds: it stands in the row of the answer's last token, which predicts
    /// nothing, so that this row gets a value as well. `token` is what it claims to predict.
    pub fn add_tails(&mut self, token: u32, wanted: impl Fn(usize) -> bool) {
        let mut tails = Vec::new();
        for (answer, list) in (0..).zip(&self.answer_lists.lists) {
            let Some(own) = self.answers.get(list.id as usize) else {
                continue;
            };
            if let Some(segment) = self.segments.get(own.segment as usize)
                && wanted((list.end - list.start) as usize)
            {
                tails.push(Target {
                    row: segment.start + segment.len - 1,
                    token,
                    answer,
                    weight: 0.0,
                });
            }
        }
        if tails.is_empty() {
            return;
        }
        self.targets.extend(tails);
        self.targets.sort_by_key(|target| target.row);
        self.target_lists = RowLists::group(self.targets.iter().map(|target| target.row));
        self.answer_lists = self.lists_of_answers();
        self.counts.targets = self.targets.len() as u32;
        self.counts.target_lists = self.target_lists.lists.len() as u32;
    }

    /// The targets of each answer; empty without targets.
    pub(super) fn lists_of_answers(&self) -> RowLists {
        let own = RowLists::group(self.targets.iter().map(|target| target.answer));
        let of_segment: BTreeMap<u32, RowList> = own
            .lists
            .iter()
            .filter_map(|list| Some((self.answers.get(list.id as usize)?.segment, *list)))
            .collect();
        let lists = (0..).zip(&self.answers).map(|(id, answer)| RowList {
            id,
            ..of_segment.get(&answer.segment).copied().unwrap_or_default()
        });
        RowLists {
            lists: lists.collect(),
            rows: own.rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_sorted_by_id_then_index() {
        let grouped = RowLists::group([7, 2, 7, 0, 2, 7].into_iter());
        let lists: Vec<_> = grouped
            .lists
            .iter()
            .map(|list| {
                (
                    list.id,
                    &grouped.rows[list.start as usize..list.end as usize],
                )
            })
            .collect();
        assert_eq!(lists, [(0, &[3][..]), (2, &[1, 4]), (7, &[0, 2, 5])]);
        assert_eq!(RowLists::group(std::iter::empty()), RowLists::default());
    }

    #[test]
    fn tiles_are_bounded_by_tokens_and_segments() {
        let capacity = Capacity {
            tokens: 65,
            segments: 4,
            ..Capacity::default()
        };
        assert_eq!(capacity.tiles(), 3 + 4);
    }

    #[test]
    fn device_structs_have_the_sizes_of_the_shaders() {
        assert_eq!(size_of::<Segment>(), 32);
        assert_eq!(size_of::<Tile>(), 8);
        assert_eq!(size_of::<Answer>(), 16);
        assert_eq!(size_of::<Pair>(), 8);
        assert_eq!(size_of::<Target>(), 16);
        assert_eq!(size_of::<RowList>(), 16);
        assert_eq!(size_of::<Counts>(), 64);
    }
}
