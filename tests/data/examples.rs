//! Packing, in cases small enough to be written out.

use prefgrad::Error;
use prefgrad::data::{
    Answer, Capacity, Counts, NONE, PackOptions, Packer, Pair, Preference, Segment, Target,
    Targets, Tile, TokenRecord, pack_all,
};

const CAPACITY: Capacity = Capacity {
    tokens: 64,
    segments: 8,
    answers: 8,
    pairs: 4,
    targets: 64,
};

fn pair(line: usize, prompt: &[u32], chosen: &[u32], rejected: &[u32]) -> TokenRecord {
    TokenRecord {
        line,
        prompt: prompt.to_vec(),
        answers: vec![chosen.to_vec(), rejected.to_vec()],
        preferences: vec![Preference {
            chosen: 0,
            rejected: 1,
            weight: 0.5,
            margin: 2.0,
        }],
    }
}

fn options(pad_token_id: Option<u32>) -> PackOptions {
    PackOptions {
        pad_token_id,
        targets: Targets::All,
        ..PackOptions::default()
    }
}

fn segment(rows: [u32; 2], prefix: [u32; 2], query_end: u32) -> Segment {
    Segment {
        start: rows[0],
        len: rows[1],
        prefix_start: prefix[0],
        prefix_len: prefix[1],
        position: prefix[1],
        query_end,
        pad: [0; 2],
    }
}

fn target(row: u32, token: u32, answer: u32, weight: f32) -> Target {
    Target {
        row,
        token,
        answer,
        weight,
    }
}

#[test]
fn two_records_are_laid_out_as_described() {
    let records = [
        pair(4, &[10, 11], &[12, 13], &[14]),
        pair(9, &[], &[15], &[16, 17]),
    ];
    let mut packer = Packer::new(CAPACITY, options(None));
    for record in &records {
        assert!(packer.try_push(record).unwrap());
    }
    let batch = packer.finish(0.5, 0.125, 3);
    assert_eq!(batch.tokens, [10, 11, 12, 13, 14, 15, 16, 17]);
    assert_eq!(batch.segment, [0, 0, 1, 1, 2, 3, 4, 4]);
    assert_eq!(batch.positions, [0, 1, 2, 3, 2, 0, 0, 1]);
    let expected = [
        segment([0, 2], [0, 0], 5),
        segment([2, 2], [0, 2], 4),
        segment([4, 1], [0, 2], 5),
        segment([5, 1], [5, 0], 6),
        segment([6, 2], [6, 0], 8),
    ];
    assert_eq!(batch.segments, expected);
    let tiles: Vec<(u32, u32)> = batch.tiles.iter().map(|t| (t.segment, t.row)).collect();
    assert_eq!(tiles, [(0, 0), (1, 2), (2, 4), (3, 5), (4, 6)]);
    let answer = |pooled_row, segment, record, index| Answer {
        pooled_row,
        segment,
        record,
        index,
    };
    let expected = [
        answer(3, 1, 0, 0),
        answer(4, 2, 0, 1),
        answer(5, 3, 1, 0),
        answer(7, 4, 1, 1),
    ];
    assert_eq!(batch.answers, expected);
    let comparison = Pair {
        weight: 0.5,
        margin: 2.0,
    };
    assert_eq!(batch.pairs, [comparison; 2]);
    let expected = [
        target(0, 11, NONE, 2.0),
        target(1, 12, 0, 1.0),
        target(1, 14, 1, 1.0),
        target(2, 13, 0, 1.0),
        target(6, 17, 3, 1.0),
    ];
    assert_eq!(batch.targets, expected);
    let expected = Counts {
        tokens: 8,
        segments: 5,
        tiles: 5,
        answers: 4,
        pairs: 2,
        targets: 5,
        token_lists: 8,
        position_lists: 4,
        pooled_lists: 4,
        target_lists: 4,
        slot: 3,
        pair_scale: 0.5,
        target_scale: 0.125,
        pad: [0; 3],
    };
    assert_eq!(batch.counts, expected);
    assert_eq!(batch.lines, [4, 9]);
    assert_eq!(batch.tokens_without_sharing, 4 + 3 + 1 + 2);
    assert!(packer.is_empty());
}

#[test]
fn an_answer_that_begins_another_pools_in_the_prompt() {
    // "a b" and "a b c", each ended by 9, which is also the padding token, as GPT-2 has it.
    let record = pair(1, &[1, 2], &[9], &[3, 9]);
    let batch = pack_all([&record], CAPACITY, options(Some(9)))
        .unwrap()
        .remove(0);
    assert_eq!(batch.tokens, [1, 2, 9, 3, 9]);
    let pooled: Vec<u32> = batch.answers.iter().map(|a| a.pooled_row).collect();
    assert_eq!(pooled, [1, 3]);
}

#[test]
fn one_row_serves_all_answers_of_padding() {
    let record = pair(1, &[1, 9], &[9], &[9, 9]);
    let batch = pack_all([&record], CAPACITY, options(Some(9)))
        .unwrap()
        .remove(0);
    let pooled: Vec<u32> = batch.answers.iter().map(|a| a.pooled_row).collect();
    assert_eq!(pooled, [0, 0]);
    assert_eq!(batch.counts.pooled_lists, 1);
    assert_eq!(batch.pooled_lists.rows, [0, 1]);
    // Nothing but padding: the first token, which is the answer's own without a prompt.
    let records = [pair(1, &[9], &[9], &[9, 9]), pair(2, &[], &[9], &[9, 9])];
    let batch = pack_all(&records, CAPACITY, options(Some(9)))
        .unwrap()
        .remove(0);
    let pooled: Vec<u32> = batch.answers.iter().map(|a| a.pooled_row).collect();
    assert_eq!(pooled, [0, 0, 4, 5]);
}

#[test]
fn a_ranking_computes_each_answer_once() {
    let preference = |chosen, rejected| Preference {
        chosen,
        rejected,
        weight: 1.0 / 3.0,
        margin: 0.0,
    };
    let ranking = TokenRecord {
        line: 1,
        prompt: vec![1],
        answers: vec![vec![2], vec![3], vec![4], vec![5]],
        preferences: vec![preference(0, 1), preference(0, 3), preference(1, 3)],
    };
    let batch = pack_all([&ranking], CAPACITY, options(None))
        .unwrap()
        .remove(0);
    // The third answer stands in no comparison.
    assert_eq!(batch.tokens, [1, 2, 3, 5]);
    let indices: Vec<u32> = batch.answers.iter().map(|a| a.index).collect();
    assert_eq!(indices, [0, 1, 0, 3, 1, 3]);
    let rows: Vec<u32> = batch.answers.iter().map(|a| a.pooled_row).collect();
    assert_eq!(rows, [1, 2, 1, 3, 2, 3]);
    let owners: Vec<u32> = batch.targets.iter().map(|t| t.answer).collect();
    assert_eq!(owners, [0, 1, 3]);
    let scoring = PackOptions {
        with_pairs: false,
        ..options(None)
    };
    let batch = pack_all([&ranking], CAPACITY, scoring).unwrap().remove(0);
    assert_eq!(batch.tokens, [1, 2, 3, 4, 5]);
    assert_eq!((batch.counts.answers, batch.counts.pairs), (4, 0));
}

#[test]
fn a_tile_holds_at_most_32_rows() {
    let record = pair(1, &[7; 33], &[7; 32], &[7; 65]);
    let capacity = Capacity {
        tokens: 130,
        targets: 130,
        ..CAPACITY
    };
    let batch = pack_all([&record], capacity, options(None))
        .unwrap()
        .remove(0);
    let tile = |segment, row| Tile { segment, row };
    let expected = [
        tile(0, 0),
        tile(0, 32),
        tile(1, 33),
        tile(2, 65),
        tile(2, 97),
        tile(2, 129),
    ];
    assert_eq!(batch.tiles, expected);
}

#[test]
fn all_batches_count_as_one_step() {
    let record = pair(1, &[1, 2, 3], &[4], &[5]);
    let capacity = Capacity {
        tokens: 12,
        ..CAPACITY
    };
    let batches = pack_all([&record; 5], capacity, options(None)).unwrap();
    assert_eq!(batches.len(), 3);
    for batch in batches {
        assert_eq!(batch.counts.pair_scale, 0.2);
        // Each separate sequence has three targets.
        assert_eq!(batch.counts.target_scale, 1.0 / 30.0);
    }
}

#[test]
fn broken_records_are_refused() {
    let whole = pair(12, &[1], &[2], &[3]);
    let with = |change: fn(&mut TokenRecord)| {
        let mut record = whole.clone();
        change(&mut record);
        pack_all([&record], CAPACITY, options(None)).unwrap_err()
    };
    for (error, expected) in [
        (with(|record| record.answers.clear()), "needs an answer"),
        (
            with(|record| record.answers[1].clear()),
            "each answer a token",
        ),
        (with(|record| record.preferences.clear()), "no preference"),
        (
            with(|record| record.preferences[0].rejected = 2),
            "does not have",
        ),
        (
            with(|record| record.prompt = vec![1; 63]),
            "it takes 65 tokens and a batch holds 64",
        ),
    ] {
        assert!(matches!(error, Error::Data { .. }));
        let message = error.to_string();
        assert!(message.starts_with("record of line 12: "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}
