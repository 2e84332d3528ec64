//! What a batch must hold, worked out from the separate sequences that it stands for.

use std::collections::{BTreeMap, BTreeSet};

use prefgrad::data::{
    Batch, NONE, PackOptions, RowList, RowLists, Segment, TILE_ROWS, Target, Targets, TokenRecord,
};

/// One response with its prompt, and the packed rows of its tokens.
struct Sequence {
    tokens: Vec<u32>,
    rows: Vec<u32>,
    prompt_len: usize,
    /// Its first entry in the batch's answers.
    entry: u32,
}

fn rows_of(segment: &Segment) -> Vec<u32> {
    let prefix = segment.prefix_start..segment.prefix_start + segment.prefix_len;
    prefix
        .chain(segment.start..segment.start + segment.len)
        .collect()
}

/// The entries that the options ask for: (record, response).
fn entries(records: &[TokenRecord], options: &PackOptions) -> Vec<(usize, usize)> {
    let mut entries = Vec::new();
    for (at, record) in records.iter().enumerate() {
        if options.with_pairs {
            for preference in &record.preferences {
                entries.push((at, preference.chosen));
                entries.push((at, preference.rejected));
            }
        } else {
            entries.extend((0..record.answers.len()).map(|index| (at, index)));
        }
    }
    entries
}

/// Checks everything about `batch`, which must hold exactly `records`.
pub fn check(batch: &Batch, records: &[TokenRecord], options: &PackOptions) {
    let sequences = check_answers(batch, records, options);
    check_cover(batch, records, &sequences, options);
    check_visibility(batch, &sequences);
    check_tiles(batch);
    check_targets(batch, &sequences, options);
    check_lists(batch);
    check_counts(batch, &sequences);
}

/// Answers and pairs are those asked for; each entry's rows hold its tokens at its positions, and
/// it pools where a sequence classifier would.
fn check_answers(batch: &Batch, records: &[TokenRecord], options: &PackOptions) -> Vec<Sequence> {
    let lines: Vec<usize> = records.iter().map(|record| record.line).collect();
    assert_eq!(batch.lines, lines);
    let expected = entries(records, options);
    let found: Vec<(usize, usize)> = batch
        .answers
        .iter()
        .map(|answer| (answer.record as usize, answer.index as usize))
        .collect();
    assert_eq!(found, expected);
    let mut sequences = BTreeMap::new();
    for (entry, answer) in (0..).zip(&batch.answers) {
        let record = &records[answer.record as usize];
        let own = &record.answers[answer.index as usize];
        let tokens = [record.prompt.as_slice(), own].concat();
        let rows = rows_of(&batch.segments[answer.segment as usize]);
        let at =
            |values: &[u32]| -> Vec<u32> { rows.iter().map(|&r| values[r as usize]).collect() };
        assert_eq!(at(&batch.tokens), tokens);
        assert_eq!(
            at(&batch.positions),
            (0..tokens.len() as u32).collect::<Vec<_>>()
        );
        let pooled = pooled_index(&tokens, options.pad_token_id);
        assert_eq!(answer.pooled_row, rows[pooled]);
        sequences
            .entry((answer.record, answer.index))
            .or_insert(Sequence {
                tokens,
                rows,
                prompt_len: record.prompt.len(),
                entry,
            });
    }
    let pairs: Vec<(f32, f32)> = batch.pairs.iter().map(|p| (p.weight, p.margin)).collect();
    let preferences = records.iter().flat_map(|record| &record.preferences);
    let expected: Vec<(f32, f32)> = preferences
        .filter(|_| options.with_pairs)
        .map(|p| (p.weight, p.margin))
        .collect();
    assert_eq!(pairs, expected);
    sequences.into_values().collect()
}

/// `argmax(arange(T) * (ids != pad))`, the first of the largest; the last without padding token.
fn pooled_index(tokens: &[u32], pad: Option<u32>) -> usize {
    let Some(pad) = pad else {
        return tokens.len() - 1;
    };
    let score = |at: usize| at * usize::from(tokens[at] != pad);
    let best = (0..tokens.len()).map(score).max().unwrap();
    (0..tokens.len()).find(|&at| score(at) == best).unwrap()
}

/// Every row belongs to a sequence; shared prompts stand once, everything else once a sequence.
fn check_cover(
    batch: &Batch,
    records: &[TokenRecord],
    sequences: &[Sequence],
    options: &PackOptions,
) {
    let covered: BTreeSet<u32> = sequences.iter().flat_map(|s| s.rows.clone()).collect();
    assert_eq!(covered, (0..batch.tokens.len() as u32).collect());
    let separate: usize = sequences.iter().map(|s| s.tokens.len()).sum();
    assert_eq!(batch.tokens_without_sharing, separate);
    let own: usize = sequences
        .iter()
        .map(|s| s.tokens.len() - s.prompt_len)
        .sum();
    let prompts: usize = records.iter().map(|record| record.prompt.len()).sum();
    let expected = if options.share_prompts {
        prompts + own
    } else {
        separate
    };
    assert_eq!(batch.tokens.len(), expected);
    let mut next = 0;
    for (index, segment) in (0..).zip(&batch.segments) {
        assert_eq!(segment.start, next);
        assert!(segment.len > 0);
        next += segment.len;
        assert_eq!(segment.position, segment.prefix_len);
        let ids = &batch.segment[segment.start as usize..next as usize];
        assert!(ids.iter().all(|&id| id == index));
    }
    assert_eq!(next as usize, batch.tokens.len());
    assert_eq!(batch.segment.len(), batch.tokens.len());
    assert_eq!(batch.positions.len(), batch.tokens.len());
}

/// What the segments say of who attends to whom is causal attention within each sequence, seen
/// from the queries and from the keys.
fn check_visibility(batch: &Batch, sequences: &[Sequence]) {
    let mut expected = vec![BTreeSet::new(); batch.tokens.len()];
    for sequence in sequences {
        for (at, &query) in sequence.rows.iter().enumerate() {
            expected[query as usize].extend(&sequence.rows[..=at]);
        }
    }
    for (query, keys) in expected.iter().enumerate() {
        let segment = &batch.segments[batch.segment[query] as usize];
        let rows = rows_of(segment).into_iter();
        let found: BTreeSet<u32> = rows.filter(|&row| row <= query as u32).collect();
        assert_eq!(&found, keys, "keys of row {query}");
    }
    for key in 0..batch.tokens.len() as u32 {
        let end = batch.segments[batch.segment[key as usize] as usize].query_end;
        let queries: Vec<u32> = (0..batch.tokens.len() as u32)
            .filter(|&query| expected[query as usize].contains(&key))
            .collect();
        assert_eq!(
            queries,
            (key..end).collect::<Vec<_>>(),
            "queries of row {key}"
        );
    }
}

/// Tiles follow one another without a gap, none longer than allowed or in two segments.
fn check_tiles(batch: &Batch) {
    let mut next = 0;
    for tile in &batch.tiles {
        assert_eq!(tile.row, next);
        let segment = &batch.segments[tile.segment as usize];
        assert!(segment.start <= tile.row);
        next = (tile.row + TILE_ROWS).min(segment.start + segment.len);
        assert!(next > tile.row);
    }
    assert_eq!(next as usize, batch.tokens.len());
    let bound = batch.tokens.len().div_ceil(TILE_ROWS as usize) + batch.segments.len();
    assert!(batch.tiles.len() <= bound);
}

/// Targets are the next tokens of the separate sequences, equal predictions counted.
fn check_targets(batch: &Batch, sequences: &[Sequence], options: &PackOptions) {
    let mut expected = BTreeMap::new();
    for sequence in sequences {
        for at in 1..sequence.tokens.len() {
            let answer = if at < sequence.prompt_len {
                NONE
            } else {
                sequence.entry
            };
            match options.targets {
                Targets::None => continue,
                Targets::Answers if answer == NONE => continue,
                _ => {}
            }
            expected
                .entry((sequence.rows[at - 1], sequence.rows[at]))
                .or_insert(Target {
                    row: sequence.rows[at - 1],
                    token: sequence.tokens[at],
                    answer,
                    weight: 0.0,
                })
                .weight += 1.0;
        }
    }
    assert_eq!(batch.targets, expected.into_values().collect::<Vec<_>>());
}

fn check_lists(batch: &Batch) {
    let pooled: Vec<u32> = batch.answers.iter().map(|a| a.pooled_row).collect();
    let predicting: Vec<u32> = batch.targets.iter().map(|t| t.row).collect();
    for (name, lists, ids) in [
        ("token", &batch.token_lists, &batch.tokens),
        ("position", &batch.position_lists, &batch.positions),
        ("pooled", &batch.pooled_lists, &pooled),
        ("target", &batch.target_lists, &predicting),
    ] {
        assert_eq!(lists, &group(ids), "{name} lists");
    }
    for (id, (list, answer)) in (0..).zip(batch.answer_lists.lists.iter().zip(&batch.answers)) {
        let first = batch
            .answers
            .iter()
            .position(|a| a.segment == answer.segment);
        let expected: Vec<u32> = (0..)
            .zip(&batch.targets)
            .filter(|(_, target)| target.answer as usize == first.unwrap())
            .map(|(index, _)| index)
            .collect();
        let rows = &batch.answer_lists.rows[list.start as usize..list.end as usize];
        assert_eq!((list.id, rows), (id, &expected[..]), "answer lists");
    }
    assert_eq!(batch.answer_lists.lists.len(), batch.answers.len());
    let in_order = (0..batch.targets.len() as u32).collect::<Vec<_>>();
    assert_eq!(batch.target_lists.rows, in_order);
}

fn group(ids: &[u32]) -> RowLists {
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, &id) in (0..).zip(ids) {
        groups.entry(id).or_default().push(index);
    }
    let mut grouped = RowLists::default();
    for (id, rows) in groups {
        let start = grouped.rows.len() as u32;
        grouped.rows.extend(rows);
        grouped.lists.push(RowList {
            id,
            start,
            end: grouped.rows.len() as u32,
            pad: 0,
        });
    }
    grouped
}

fn check_counts(batch: &Batch, sequences: &[Sequence]) {
    let counts = &batch.counts;
    let distinct = |values: &mut dyn Iterator<Item = u32>| values.collect::<BTreeSet<_>>().len();
    for (name, count, expected) in [
        ("tokens", counts.tokens, batch.tokens.len()),
        ("segments", counts.segments, batch.segments.len()),
        ("tiles", counts.tiles, batch.tiles.len()),
        ("answers", counts.answers, batch.answers.len()),
        ("pairs", counts.pairs, batch.pairs.len()),
        ("targets", counts.targets, batch.targets.len()),
        (
            "token lists",
            counts.token_lists,
            distinct(&mut batch.tokens.iter().copied()),
        ),
        (
            "position lists",
            counts.position_lists,
            sequences.iter().map(|s| s.tokens.len()).max().unwrap(),
        ),
        (
            "pooled lists",
            counts.pooled_lists,
            distinct(&mut batch.answers.iter().map(|a| a.pooled_row)),
        ),
        (
            "target lists",
            counts.target_lists,
            distinct(&mut batch.targets.iter().map(|t| t.row)),
        ),
    ] {
        assert_eq!(count as usize, expected, "{name}");
    }
}
