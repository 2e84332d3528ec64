//! A prompt computed once gives what separate sequences give: the crate's central claim.

use prefgrad::data::{Batch, PackOptions, Preference, Targets, TokenRecord};
use prefgrad::model::RewardModel;

use crate::tools::{batch, difference, gpu, pair, pairs, small_model};

const BOUND: f64 = 1e-5;

fn ids(seed: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| 3 + (seed * 131 + i * i * 7 + i * 29) % 90)
        .collect()
}

/// Pairs whose shapes are easy to get wrong.
fn awkward_pairs() -> Vec<(&'static str, TokenRecord)> {
    let long = ids(1, 33);
    vec![
        (
            "ordinary",
            pair(&ids(2, 12), &[40, 41, 42, 1], &[50, 51, 1]),
        ),
        (
            "an answer is a prefix of the other",
            pair(&ids(3, 9), &[1], &[20, 21, 1]),
        ),
        (
            "both answers one token long",
            pair(&ids(4, 7), &[30], &[31]),
        ),
        ("no prompt", pair(&[], &[10, 11, 1], &[12, 1])),
        (
            "a prompt of one token",
            pair(&[9], &[60, 1], &[61, 62, 63, 1]),
        ),
        (
            "a prompt over a tile",
            pair(&long, &ids(5, 20), &ids(6, 11)),
        ),
    ]
}

struct Outcome {
    rewards: Vec<f32>,
    gradients: Vec<(String, Vec<f32>)>,
}

fn run(model: &RewardModel, batch: &Batch) -> Outcome {
    model.parameters().reset_optimizer(gpu()).unwrap();
    let rewards = model.rewards(batch).unwrap();
    model.accumulate(batch).unwrap();
    let gradients = model.parameters().read_gradients(gpu()).unwrap();
    Outcome {
        rewards,
        gradients: gradients
            .into_iter()
            .map(|(s, v)| (s.name.clone(), v))
            .collect(),
    }
}

fn assert_same(name: &str, shared: &Outcome, separate: &Outcome) {
    let error = difference(&shared.rewards, &separate.rewards);
    assert!(error < BOUND, "{name}: rewards {error:e}");
    let largest = separate
        .gradients
        .iter()
        .flat_map(|(_, values)| values)
        .fold(0.0f32, |max, x| max.max(x.abs()));
    for ((parameter, a), (_, b)) in shared.gradients.iter().zip(&separate.gradients) {
        // Gradients that cancel to rounding noise are measured against the largest one.
        let noise = b.iter().all(|x| x.abs() < 1e-6 * largest);
        let error = if noise {
            f64::from(a.iter().fold(0.0f32, |max, x| max.max(x.abs())) / largest)
        } else {
            difference(a, b)
        };
        assert!(error < BOUND, "{name}: d {parameter} {error:e}");
    }
}

#[test]
fn a_shared_prompt_gives_the_rewards_and_gradients_of_separate_sequences() {
    let model = small_model(100, None, false);
    for (name, record) in awkward_pairs() {
        let records = [record];
        let shared = batch(&model, &records, pairs(model.config()));
        let options = PackOptions {
            share_prompts: false,
            ..pairs(model.config())
        };
        let separate = batch(&model, &records, options);
        let prompt = records[0].prompt.len();
        assert_eq!(
            separate.tokens.len() - shared.tokens.len(),
            prompt,
            "{name}"
        );
        assert_eq!(
            shared.tokens_without_sharing,
            separate.tokens.len(),
            "{name}"
        );
        assert_same(name, &run(&model, &shared), &run(&model, &separate));
    }
}

#[test]
fn a_ranking_shares_one_prompt() {
    let model = small_model(100, None, false);
    let preference = |chosen, rejected| Preference {
        chosen,
        rejected,
        weight: 1.0 / 3.0,
        margin: 0.0,
    };
    let record = TokenRecord {
        line: 1,
        prompt: ids(8, 10),
        answers: vec![vec![40, 1], vec![41, 42, 1], vec![43, 44, 45, 1]],
        preferences: vec![preference(0, 1), preference(0, 2), preference(1, 2)],
    };
    let shared = batch(&model, std::slice::from_ref(&record), pairs(model.config()));
    assert_eq!(shared.tokens.len(), 10 + 2 + 3 + 4);
    assert_eq!(shared.answers.len(), 6);
    // The same three comparisons as three pairs of their own.
    let apart: Vec<TokenRecord> = record
        .preferences
        .iter()
        .map(|p| {
            let mut one = pair(
                &record.prompt,
                &record.answers[p.chosen],
                &record.answers[p.rejected],
            );
            one.preferences[0].weight = p.weight;
            one
        })
        .collect();
    let separate = batch(&model, &apart, pairs(model.config()));
    assert_same("ranking", &run(&model, &shared), &run(&model, &separate));
}

#[test]
fn company_and_order_change_nothing() {
    let model = small_model(100, None, false);
    let records: Vec<TokenRecord> = awkward_pairs()
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    let together = run(&model, &batch(&model, &records, pairs(model.config())));
    let mut backwards = records.clone();
    backwards.reverse();
    let reversed = run(&model, &batch(&model, &backwards, pairs(model.config())));
    for (index, record) in records.iter().enumerate() {
        let alone = batch(&model, std::slice::from_ref(record), pairs(model.config()));
        let alone = model.rewards(&alone).unwrap();
        let in_company = &together.rewards[2 * index..2 * index + 2];
        let from_the_end = records.len() - 1 - index;
        let in_reverse = &reversed.rewards[2 * from_the_end..2 * from_the_end + 2];
        assert!(difference(in_company, &alone) < BOUND, "record {index}");
        assert!(
            difference(in_reverse, &alone) < BOUND,
            "record {index} in reverse"
        );
    }
    let turned: Outcome = Outcome {
        rewards: together.rewards.clone(),
        gradients: reversed.gradients,
    };
    assert_same("order", &turned, &together);
}

#[test]
fn the_same_batch_gives_the_same_bits() {
    let model = small_model(100, None, false);
    let records: Vec<TokenRecord> = awkward_pairs()
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    let batch = batch(&model, &records, pairs(model.config()));
    let (first, second) = (run(&model, &batch), run(&model, &batch));
    let bits = |outcome: &Outcome| -> Vec<u32> {
        let gradients = outcome.gradients.iter().flat_map(|(_, values)| values);
        outcome
            .rewards
            .iter()
            .chain(gradients)
            .map(|x| x.to_bits())
            .collect()
    };
    assert_eq!(bits(&first), bits(&second));
}

#[test]
fn language_targets_share_the_prompt_too() {
    let model = small_model(100, None, true);
    let record = pair(&ids(2, 12), &[40, 41, 42, 1], &[50, 51, 1]);
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::All,
        ..pairs(model.config())
    };
    let shared = batch(&model, std::slice::from_ref(&record), options);
    // A target in a shared prompt stands for one of each sequence, and weighs as much.
    let separate_options = PackOptions {
        share_prompts: false,
        ..options
    };
    let separate = batch(&model, std::slice::from_ref(&record), separate_options);
    assert_eq!(separate.counts.target_scale, shared.counts.target_scale);
    let run = |batch: &Batch| {
        model.parameters().reset_optimizer(gpu()).unwrap();
        model.accumulate_language(batch).unwrap();
        let gradients = model.parameters().read_gradients(gpu()).unwrap();
        Outcome {
            rewards: vec![model.read_metrics().unwrap()[0][0]],
            gradients: gradients
                .into_iter()
                .map(|(s, v)| (s.name.clone(), v))
                .collect(),
        }
    };
    let (shared, separate) = (run(&shared), run(&separate));
    assert!(
        shared.rewards[0] > 1.0,
        "a loss near ln 100: {:?}",
        shared.rewards
    );
    assert_same("language", &shared, &separate);
}
