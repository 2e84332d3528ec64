//! Decides where in which buffer each parameter lies.

use std::collections::HashMap;
use std::ops::Range;

use super::ALIGN;
use crate::model::ParameterSpec;
use crate::{Error, Result};

/// A parameter as kernels see it: one of the files' parameters, or several stacked by rows.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    pub name: String,
    pub shape: Vec<usize>,
    pub decay: bool,
    /// The parameters that it consists of.
    pub members: Range<usize>,
}

/// Where consecutive rows of a block go, before there are buffers.
pub(super) struct Placement {
    pub block: usize,
    pub first_row: usize,
    pub rows: usize,
    pub chunk: usize,
    pub start: usize,
}

/// The size of a buffer, before it exists.
#[derive(Default)]
pub(super) struct ChunkPlan {
    pub len: usize,
    pub decayed: usize,
}

/// Consecutive elements of a parameter inside a buffer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub chunk: usize,
    pub start: usize,
    pub len: usize,
}

pub(super) fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Stacks the parameters that say so.
pub(super) fn blocks(specs: &[ParameterSpec]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        match blocks.last_mut() {
            Some(last) if spec.stack.as_ref() == Some(&last.name) => {
                last.shape[0] += spec.shape[0];
                last.members.end += 1;
            }
            _ => blocks.push(Block {
                name: spec.stack.as_ref().unwrap_or(&spec.name).clone(),
                shape: spec.shape.clone(),
                decay: spec.decay,
                members: index..index + 1,
            }),
        }
    }
    blocks
}

/// Where the elements of each of the files' parameters lie, in order.
pub(super) fn slices(
    specs: &[ParameterSpec],
    blocks: &[Block],
    placements: &[Placement],
) -> HashMap<String, Vec<Slice>> {
    let mut found: HashMap<String, Vec<Slice>> = HashMap::new();
    for placement in placements {
        let block = &blocks[placement.block];
        let row = len(&block.shape[1..]);
        let first = placement.first_row * row;
        let window = first..first + placement.rows * row;
        let mut begin = 0;
        for spec in &specs[block.members.clone()] {
            let end = begin + len(&spec.shape);
            let shared = begin.max(window.start)..end.min(window.end);
            if !shared.is_empty() {
                found.entry(spec.name.clone()).or_default().push(Slice {
                    chunk: placement.chunk,
                    start: placement.start + shared.start - first,
                    len: shared.len(),
                });
            }
            begin = end;
        }
    }
    found
}

/// Decides which rows of which block go where: those with weight decay first.
pub(super) fn place(blocks: &[Block], capacity: usize) -> Result<(Vec<Placement>, Vec<ChunkPlan>)> {
    let mut placements = Vec::new();
    let mut chunks = vec![ChunkPlan::default()];
    for decay in [true, false] {
        for (index, block) in blocks.iter().enumerate().filter(|(_, b)| b.decay == decay) {
            let row = len(&block.shape[1..]).max(1);
            if row > capacity {
                return Err(Error::Limit {
                    what: block.name.clone(),
                    needed: row as u64 * 4,
                    limit_name: "maxStorageBufferBindingSize",
                    limit: capacity as u64 * 4,
                    hint: "use a narrower model",
                });
            }
            let mut first_row = 0;
            while first_row < block.shape[0] {
                // Windows that start at a multiple of four rows suit matrix products.
                let fitting = match capacity / row {
                    few @ 0..4 => few,
                    many => many / 4 * 4,
                };
                let rows = (block.shape[0] - first_row).min(fitting);
                let padded = (rows * row).next_multiple_of(ALIGN);
                let last = chunks.len() - 1;
                if chunks[last].len + padded > capacity {
                    chunks.push(ChunkPlan::default());
                }
                let chunk = chunks.len() - 1;
                placements.push(Placement {
                    block: index,
                    first_row,
                    rows,
                    chunk,
                    start: chunks[chunk].len,
                });
                chunks[chunk].len += padded;
                if decay {
                    chunks[chunk].decayed = chunks[chunk].len;
                }
                first_row += rows;
            }
        }
    }
    Ok((placements, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::model::Init;

    fn specs(sizes: &[(usize, usize, bool)]) -> Vec<ParameterSpec> {
        sizes
            .iter()
            .enumerate()
            .map(|(i, &(rows, cols, decay))| ParameterSpec {
                name: format!("p{i}"),
                shape: vec![rows, cols],
                decay,
                init: Init::Zeros,
                stack: None,
            })
            .collect()
    }

    #[test]
    fn a_table_over_the_limit_is_split_by_rows_and_none_is_lost() {
        let (placed, chunks) =
            place(&blocks(&specs(&[(100, 10, true), (3, 7, false)])), 256).unwrap();
        let table: Vec<_> = placed.iter().filter(|p| p.block == 0).collect();
        assert_eq!(table.iter().map(|p| p.rows).sum::<usize>(), 100);
        assert!(
            table
                .windows(2)
                .all(|w| w[0].first_row + w[0].rows == w[1].first_row)
        );
        assert!(chunks.iter().all(|c| c.len <= 256 && c.decayed <= c.len));
        assert!(placed.iter().all(|p| p.start.is_multiple_of(ALIGN)));
    }

    #[test]
    fn decay_ends_at_one_place_in_each_buffer() {
        let sizes = [(1, 64, false), (2, 64, true), (1, 64, false), (1, 10, true)];
        let (placed, chunks) = place(&blocks(&specs(&sizes)), 1024).unwrap();
        assert_eq!(
            (chunks.len(), chunks[0].decayed, chunks[0].len),
            (1, 192, 320)
        );
        for p in &placed {
            assert_eq!(sizes[p.block].2, p.start < 192);
        }
    }

    #[test]
    fn a_row_over_the_limit_is_refused_by_name() {
        let error = place(&blocks(&specs(&[(2, 300, true)])), 256)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("p0"), "{error}");
    }

    #[test]
    fn stacked_parameters_lie_behind_each_other_without_a_gap() {
        let mut list = specs(&[(3, 5, true), (2, 5, true), (1, 5, true), (4, 4, true)]);
        for spec in &mut list[..3] {
            spec.stack = Some("stack".into());
        }
        let blocks = blocks(&list);
        assert_eq!((blocks.len(), blocks[0].shape.as_slice()), (2, &[6, 5][..]));
        let (placed, _) = place(&blocks, 1024).unwrap();
        let found = slices(&list, &blocks, &placed);
        let slice = |start, len| {
            let chunk = 0;
            vec![Slice { chunk, start, len }]
        };
        assert_eq!(found["p0"], slice(0, 15));
        assert_eq!(found["p1"], slice(15, 10));
        assert_eq!(found["p2"], slice(25, 5));
        assert_eq!(found["p3"], slice(64, 16));
    }

    #[test]
    fn a_stack_that_is_split_keeps_every_element() {
        let mut list = specs(&[(30, 10, true), (31, 10, true)]);
        for spec in &mut list {
            spec.stack = Some("stack".into());
        }
        let blocks = blocks(&list);
        let (placed, _) = place(&blocks, 256).unwrap();
        assert_eq!(placed.iter().map(|p| p.rows).sum::<usize>(), 61);
        let found = slices(&list, &blocks, &placed);
        let total = |name: &str| found[name].iter().map(|s| s.len).sum::<usize>();
        assert_eq!((total("p0"), total("p1")), (300, 310));
        assert!(found["p1"].len() > 1);
    }
}
