//! Ensembles of reward models as a reward.

use prefgrad::data::TokenRecord;
use prefgrad::model::{Finish, RewardModel};
use prefgrad::train::{Reward, RewardEnsemble, Sample, capacity_for, score_records};

use crate::policy_tools::{config, prompts, spread};
use crate::tools::gpu;

fn model(seed: u64) -> RewardModel {
    let model = RewardModel::to_score(gpu(), &config(true), capacity_for(64, false)).unwrap();
    spread(model.parameters(), seed);
    model
}

/// Answers of several lengths to each prompt: more than one batch of the models holds.
fn answers() -> Vec<(Vec<u32>, Vec<u32>)> {
    let answer = |i: u32| (0..1 + i % 6).map(|k| 2 + (i + 7 * k) % 19).collect();
    let prompts = prompts().into_iter().cycle();
    prompts.zip((0..20).map(answer)).collect()
}

fn samples(answers: &[(Vec<u32>, Vec<u32>)]) -> Vec<Sample<'_>> {
    let sample = |(prompt, completion): &'_ (Vec<u32>, Vec<u32>)| (prompt.len(), completion.len());
    assert!(
        answers
            .iter()
            .map(sample)
            .map(|(p, c)| p + c)
            .sum::<usize>()
            > 64
    );
    answers
        .iter()
        .map(|(prompt, completion)| Sample {
            prompt,
            completion,
            finish: Finish::Length,
        })
        .collect()
}

/// What a model says of each answer.
fn scores(model: &RewardModel, answers: &[(Vec<u32>, Vec<u32>)]) -> Vec<f32> {
    let records: Vec<TokenRecord> = answers
        .iter()
        .map(|(prompt, completion)| TokenRecord {
            line: 1,
            prompt: prompt.clone(),
            answers: vec![completion.clone()],
            preferences: vec![],
        })
        .collect();
    score_records(model, &records).unwrap().concat()
}

#[test]
fn a_single_model_is_its_own_reward() {
    let answers = answers();
    let expected = scores(&model(1), &answers);
    let mut ensemble = RewardEnsemble::new(vec![model(1)], 2.0).unwrap();
    assert_eq!(ensemble.rewards(&samples(&answers)).unwrap(), expected);
    assert_eq!(ensemble.spread(), 0.0);
    assert!(expected.iter().any(|x| x.abs() > 0.1), "{expected:?}");
}

#[test]
fn where_models_disagree_the_reward_is_lower() {
    let answers = answers();
    let each = [1, 2].map(|seed| scores(&model(seed), &answers));
    for pessimism in [0.0f32, 0.5, 2.0] {
        let models = vec![model(1), model(2)];
        let mut ensemble = RewardEnsemble::new(models, pessimism).unwrap();
        let rewards = ensemble.rewards(&samples(&answers)).unwrap();
        let mut spread = 0.0;
        for (i, reward) in rewards.iter().enumerate() {
            let (a, b) = (f64::from(each[0][i]), f64::from(each[1][i]));
            // Of two values, unbiased.
            let deviation = (a - b).abs() / 2f64.sqrt();
            spread += deviation / answers.len() as f64;
            let expected = 0.5 * (a + b) - f64::from(pessimism) * deviation;
            let error = (f64::from(*reward) - expected).abs();
            assert!(error < 1e-6 * (a.abs() + b.abs()), "{reward} {expected}");
        }
        assert!(spread > 0.1 && (ensemble.spread() - spread).abs() < 1e-12);
    }
}

#[test]
fn an_ensemble_of_nothing_or_of_no_measure_is_refused() {
    assert!(RewardEnsemble::new(vec![], 0.0).is_err());
    for pessimism in [-1.0, f32::NAN, f32::INFINITY] {
        let error = RewardEnsemble::new(vec![model(1)], pessimism)
            .err()
            .unwrap();
        assert!(error.to_string().contains("pessimism"), "{error}");
    }
    let mut ensemble = RewardEnsemble::new(vec![model(1)], 0.0).unwrap();
    assert!(ensemble.rewards(&[]).unwrap().is_empty());
    let long = [(vec![2; 40], vec![3; 40])];
    let error = ensemble.rewards(&samples(&long)).unwrap_err();
    assert!(error.to_string().contains("64"), "{error}");
}
