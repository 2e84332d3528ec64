//! Packing, for any records.

use prefgrad::data::{
    Batch, Capacity, PackOptions, Packer, Preference, Targets, TokenRecord, pack_all,
};
use proptest::prelude::*;

use crate::expected::check;

/// More than any generated record needs.
const AMPLE: Capacity = Capacity {
    tokens: 10_000,
    segments: 1_000,
    answers: 1_000,
    pairs: 1_000,
    targets: 10_000,
};

/// Few distinct tokens, so that padding and repeated tokens are frequent; lengths from `least`
/// to beyond two tiles.
fn tokens(least: usize) -> impl Strategy<Value = Vec<u32>> {
    let short = prop::collection::vec(0u32..4, least..4);
    let long = prop::collection::vec(0u32..4, least..80);
    prop_oneof![3 => short, 1 => long]
}

fn record() -> impl Strategy<Value = TokenRecord> {
    let answers = prop::collection::vec((tokens(1), 0u8..3), 2..5);
    (tokens(0), answers, 0u8..4).prop_map(|(prompt, answers, margin)| {
        let (answers, ranks): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let mut preferences = Vec::new();
        for (chosen, best) in ranks.iter().enumerate() {
            for (rejected, worse) in ranks.iter().enumerate() {
                if best < worse || (ranks.iter().max() == ranks.iter().min() && chosen > rejected) {
                    preferences.push(Preference {
                        chosen,
                        rejected,
                        weight: 0.25 + chosen as f32,
                        margin: f32::from(margin) + rejected as f32,
                    });
                }
            }
        }
        // Two answers are enough of a comparison: the others may stay unnamed.
        preferences.truncate(if margin == 0 { 1 } else { usize::MAX });
        TokenRecord {
            line: 0,
            prompt,
            answers,
            preferences,
        }
    })
}

fn records() -> impl Strategy<Value = Vec<TokenRecord>> {
    prop::collection::vec(record(), 1..6).prop_map(|mut records| {
        for (line, record) in (3..).step_by(7).zip(&mut records) {
            record.line = line;
        }
        records
    })
}

fn targets() -> impl Strategy<Value = Targets> {
    prop_oneof![
        Just(Targets::None),
        Just(Targets::Answers),
        Just(Targets::All)
    ]
}

fn options() -> impl Strategy<Value = PackOptions> {
    (prop::option::of(0u32..4), any::<[bool; 2]>(), targets()).prop_map(
        |(pad_token_id, [with_pairs, share_prompts], targets)| PackOptions {
            pad_token_id,
            with_pairs,
            targets,
            share_prompts,
        },
    )
}

fn alone(record: &TokenRecord, options: PackOptions) -> Capacity {
    let batch = pack_all([record], AMPLE, options).unwrap().remove(0);
    sizes(&batch)
}

fn sizes(batch: &Batch) -> Capacity {
    Capacity {
        tokens: batch.tokens.len(),
        segments: batch.segments.len(),
        answers: batch.answers.len(),
        pairs: batch.pairs.len(),
        targets: batch.targets.len(),
    }
}

fn fits(used: &Capacity, more: &Capacity, limit: &Capacity) -> bool {
    used.tokens + more.tokens <= limit.tokens
        && used.segments + more.segments <= limit.segments
        && used.answers + more.answers <= limit.answers
        && used.pairs + more.pairs <= limit.pairs
        && used.targets + more.targets <= limit.targets
}

proptest! {
    #[test]
    fn a_batch_is_its_separate_sequences(records in records(), options in options()) {
        let batches = pack_all(&records, AMPLE, options).unwrap();
        prop_assert_eq!(batches.len(), 1);
        check(&batches[0], &records, &options);
    }

    #[test]
    fn batches_are_full_and_keep_the_order(
        records in records(),
        options in options(),
        slack in prop::array::uniform5(0usize..60),
    ) {
        let needs: Vec<Capacity> = records.iter().map(|r| alone(r, options)).collect();
        let most = |size: fn(&Capacity) -> usize| needs.iter().map(size).max().unwrap();
        let capacity = Capacity {
            tokens: most(|need| need.tokens) + slack[0],
            segments: most(|need| need.segments) + slack[1] / 4,
            answers: most(|need| need.answers) + slack[2] / 4,
            pairs: most(|need| need.pairs) + slack[3] / 4,
            targets: most(|need| need.targets) + slack[4],
        };
        let batches = pack_all(&records, capacity, options).unwrap();
        let mut next = 0;
        for batch in &batches {
            let end = next + batch.lines.len();
            check(batch, &records[next..end], &options);
            prop_assert!(fits(&sizes(batch), &Capacity::default(), &capacity));
            prop_assert!(batch.tiles.len() <= capacity.tiles());
            if let Some(need) = needs.get(end) {
                prop_assert!(!fits(&sizes(batch), need, &capacity));
            }
            next = end;
        }
        prop_assert_eq!(next, records.len());
    }

    #[test]
    fn a_record_over_the_capacity_is_refused(
        record in record(),
        options in options(),
        short in 0usize..5,
    ) {
        let mut capacity = alone(&record, options);
        let size = [
            &mut capacity.tokens,
            &mut capacity.segments,
            &mut capacity.answers,
            &mut capacity.pairs,
            &mut capacity.targets,
        ]
        .into_iter()
        .nth(short)
        .unwrap();
        prop_assume!(*size > 0);
        *size -= 1;
        let mut packer = Packer::new(capacity, options);
        prop_assert!(packer.try_push(&record).is_err());
        prop_assert!(packer.is_empty());
        prop_assert_eq!(packer.finish(1.0, 1.0, 0).tokens.len(), 0);
    }
}
