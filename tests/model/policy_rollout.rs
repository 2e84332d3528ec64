//! Rewards land where they belong, nothing leaks between answers, and every answer is learnt from
//! once an epoch.

use prefgrad::data::Capacity;
use prefgrad::kernels::policy::grpo_loss::GrpoLossType;
use prefgrad::model::Finish;
use prefgrad::train::{
    Group, GrpoOptions, PpoOptions, Reward, RolloutBuffer, RolloutOptions, policy_capacity,
};
use proptest::prelude::*;

use crate::policy_tools::{
    ALGORITHMS, Recorder, bits, grpo, hash, named, ppo, prompts, rollout, trainer,
};
use crate::tools::gpu;

/// Without discount, penalty or whitening: every return is the reward.
fn bare(rollout: RolloutOptions) -> PpoOptions {
    let mut options = PpoOptions {
        rollout,
        lambda: 1.0,
        whiten_advantages: false,
        ..PpoOptions::default()
    };
    options.rollout.kl.coef = 0.0;
    options
}

#[test]
fn the_reward_lands_on_the_last_token_and_the_penalty_on_answers_that_were_cut() {
    let mut options = bare(RolloutOptions {
        missing_eos_penalty: 0.5,
        ..rollout()
    });
    // Each token sees what the next one is worth, and the last one the reward.
    options.lambda = 0.0;
    let mut trainer = ppo(options);
    let mut reward = Recorder::new(hash);
    let (step, _) = trainer.step(&mut reward).unwrap();
    let experience = trainer.buffer().read_experience(gpu()).unwrap();
    let mut ends = [0, 0];
    let mut sum = 0.0;
    for (judged, tokens) in reward.seen.iter().zip(&experience) {
        let cut = judged.finish == Finish::Length;
        ends[usize::from(cut)] += 1;
        let score = judged.reward - if cut { 0.5 } else { 0.0 };
        sum += f64::from(score);
        assert_eq!(tokens.len(), judged.answer.len());
        for pair in tokens.windows(2) {
            let error = (pair[0].returns - pair[1].value).abs();
            assert!(error < 1e-6, "{tokens:?}");
        }
        let last = tokens.last().unwrap();
        assert!((last.returns - score).abs() < 1e-6, "{score} {last:?}");
        let advantage = score - last.value;
        assert!((last.advantage - advantage).abs() < 1e-6, "{last:?}");
    }
    assert!(ends[0] > 1 && ends[1] > 1, "{ends:?}");
    let mean = sum / experience.len() as f64;
    assert!((step.reward_mean - mean).abs() < 1e-6);
    let finished = ends[0] as f64 / experience.len() as f64;
    assert_eq!(step.finished, finished);
}

/// TRL 1.12, `PPOTrainer`: `rewards[L + 1] += score` where the answer is shorter than the limit,
/// with the value of the state behind its last token.
#[test]
fn as_trl_has_it_the_reward_of_a_short_answer_lands_one_step_later() {
    let mut options = bare(rollout());
    options.lambda = 0.0;
    options.trl_compat = true;
    let mut trainer = ppo(options);
    let mut reward = Recorder::new(hash);
    let (step, _) = trainer.step(&mut reward).unwrap();
    assert_eq!(step.first_ratio, [1.0, 1.0]);
    let limit = trainer.options().rollout.max_new_tokens;
    let experience = trainer.buffer().read_experience(gpu()).unwrap();
    let mut short = 0;
    for (judged, tokens) in reward.seen.iter().zip(&experience) {
        let real = judged.answer.len();
        let tail = usize::from(real < limit);
        short += tail;
        assert_eq!(tokens.len(), real + tail);
        let last = tokens.last().unwrap();
        assert!((last.returns - judged.reward).abs() < 1e-6, "{last:?}");
        for pair in tokens.windows(2) {
            assert!((pair[0].returns - pair[1].value).abs() < 1e-6, "{tokens:?}");
        }
        let weights: Vec<f32> = tokens.iter().map(|token| token.weight).collect();
        assert!(weights[..real].iter().all(|&weight| weight == 1.0));
        assert!(weights[real..].iter().all(|&weight| weight == 0.0));
    }
    assert!(short > 1 && short < experience.len(), "{short}");
}

#[test]
fn an_answer_is_worth_the_same_alone_and_in_company() {
    let packed = |batch_tokens| {
        let mut trainer = ppo(bare(RolloutOptions {
            batch_tokens,
            ..rollout()
        }));
        let mut reward = Recorder::new(hash);
        trainer.step(&mut reward).unwrap();
        let experience = trainer.buffer().read_experience(gpu()).unwrap();
        (reward.seen, experience, trainer.buffer().batches().len())
    };
    // A group alone in its micro-batch, and all groups in one.
    let (seen, alone, many) = packed(28);
    let (also_seen, together, one) = packed(512);
    assert_eq!((many, one), (5, 1));
    assert_eq!(seen, also_seen);
    for ((judged, alone), together) in seen.iter().zip(&alone).zip(&together) {
        for (a, b) in alone.iter().zip(together) {
            assert!((a.advantage - b.advantage).abs() < 2e-6, "{a:?} {b:?}");
            assert!((a.returns - judged.reward).abs() < 2e-6, "{a:?}");
        }
    }
}

/// A reward of so much for answers of one prompt alone.
struct OnlyFor(Vec<u32>, f32);

impl Reward for OnlyFor {
    fn rewards(&mut self, samples: &[prefgrad::train::Sample<'_>]) -> prefgrad::Result<Vec<f32>> {
        let reward = |(i, s): (usize, &prefgrad::train::Sample<'_>)| {
            f32::from(u8::from(s.prompt == self.0)) * self.1 * (1 + i) as f32
        };
        Ok(samples.iter().enumerate().map(reward).collect())
    }
}

#[test]
fn a_reward_moves_the_advantages_of_its_own_answer_only() {
    let advantages = |reward: &mut OnlyFor| {
        let mut trainer = ppo(bare(rollout()));
        trainer.step(reward).unwrap();
        trainer.buffer().read_experience(gpu()).unwrap()
    };
    let chosen = prompts()[2].clone();
    let mut records = Recorder::new(hash);
    ppo(bare(rollout())).step(&mut records).unwrap();
    let without = advantages(&mut OnlyFor(chosen.clone(), 0.0));
    let with = advantages(&mut OnlyFor(chosen.clone(), 4.0));
    let mut moved = 0;
    for ((judged, a), b) in records.seen.iter().zip(&without).zip(&with) {
        let own = judged.prompt == chosen;
        moved += usize::from(own);
        for (a, b) in a.iter().zip(b) {
            assert_eq!(a.advantage != b.advantage, own, "{judged:?}");
        }
    }
    assert_eq!(moved, 3);
}

#[test]
fn a_group_without_spread_teaches_nothing() {
    for loss_type in [
        GrpoLossType::Grpo,
        GrpoLossType::Bnpo,
        GrpoLossType::DrGrpo,
        GrpoLossType::Dapo,
    ] {
        let mut options = GrpoOptions {
            rollout: rollout(),
            loss_type,
            ..GrpoOptions::default()
        };
        options.rollout.kl.coef = 0.0;
        let mut trainer = grpo(options);
        let before = bits(trainer.policy().parameters());
        let (step, warnings) = trainer.step(&mut Recorder::new(|_| 1.25)).unwrap();
        assert_eq!(step.groups_without_spread, 1.0);
        assert!(warnings.contains(&prefgrad::train::Warning::NoSpread));
        assert_eq!(bits(trainer.policy().parameters()), before);
        let gradients = named(trainer.policy().parameters(), |chunk| &chunk.m);
        assert!(gradients.values().flatten().all(|&x| x == 0.0));
    }
}

#[test]
fn epochs_and_minibatches_make_the_stated_number_of_updates() {
    for algorithm in ALGORITHMS {
        for (epochs, minibatches) in [(1, 1), (3, 2), (1, 4), (2, 5)] {
            let mut trainer = trainer(
                algorithm,
                RolloutOptions {
                    epochs,
                    minibatches,
                    ..rollout()
                },
            );
            let mut reward = Recorder::new(hash);
            let (step, _) = trainer.step(&mut reward).unwrap();
            assert_eq!(step.updates, (epochs * minibatches) as u64);
            let buffer = trainer.buffer();
            assert_eq!(buffer.minibatches().len(), minibatches);
            let tokens: usize = buffer.batches().iter().map(|b| b.tokens.len()).sum();
            assert_eq!(step.trained_tokens, epochs * tokens);
        }
    }
}

/// A group whose answers and scores tell it from all others.
fn group(index: usize, prompt: usize, lengths: &[usize]) -> Group {
    Group {
        prompt: vec![index as u32; prompt],
        answers: lengths.iter().map(|&len| vec![index as u32; len]).collect(),
        finished: vec![true; lengths.len()],
        scores: (0..lengths.len())
            .map(|i| (100 * index + i) as f32)
            .collect(),
    }
}

/// Groups of `samples` answers, up to a prompt length and an answer length; all at their longest
/// now and then.
fn groups() -> impl Strategy<Value = (Vec<Group>, usize, usize)> {
    let sizes = (1..6usize, 1..12usize, 1..9usize, 1..24usize);
    (sizes, any::<bool>()).prop_flat_map(|((samples, prompt, answer, count), longest)| {
        let (least_prompt, least) = if longest { (prompt, answer) } else { (1, 1) };
        let lengths = prop::collection::vec(least..=answer, samples);
        let shape = (least_prompt..=prompt, lengths);
        prop::collection::vec(shape, count).prop_map(move |shapes| {
            let groups = shapes.iter().enumerate();
            let groups = groups.map(|(i, (prompt, lengths))| group(i, *prompt, lengths));
            (groups.collect(), samples, prompt + samples * answer)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_buffer_holds_what_it_was_made_for_and_every_answer_once(
        (groups, samples, group_tokens) in groups(),
        parts in 1..9usize,
        room in 0.0..2.0f64,
    ) {
        let minibatches = parts.min(groups.len());
        // From one group to three in a micro-batch.
        let capacity = policy_capacity(group_tokens + (room * group_tokens as f64) as usize);
        let largest = groups.len().div_ceil(minibatches);
        let mut buffer =
            RolloutBuffer::new(gpu(), capacity, minibatches, largest, (samples, group_tokens))
                .unwrap();
        buffer.fill(gpu(), &groups, minibatches, |len| 1.0 / len as f32).unwrap();
        prop_assert!(buffer.batches().len() <= buffer.slots().len());
        prop_assert_eq!(buffer.minibatches().len(), minibatches);
        check_parts(&buffer, &groups)?;
        check_responses(&buffer, &groups, capacity)?;
    }
}

/// Every group stands once, in parts whose sizes differ by one at most.
fn check_parts(buffer: &RolloutBuffer, groups: &[Group]) -> Result<(), TestCaseError> {
    let mut sizes = Vec::new();
    let mut seen = Vec::new();
    for slots in buffer.minibatches() {
        let batches = slots.iter().map(|&slot| &buffer.batches()[slot]);
        let lines: Vec<usize> = batches.flat_map(|batch| batch.lines.clone()).collect();
        sizes.push(lines.len());
        seen.extend(lines);
    }
    seen.sort_unstable();
    prop_assert_eq!(seen, (1..=groups.len()).collect::<Vec<_>>());
    let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
    prop_assert!(most - least <= 1, "{:?}", sizes);
    let mut slots: Vec<usize> = buffer.minibatches().concat();
    slots.sort_unstable();
    prop_assert_eq!(slots, (0..buffer.batches().len()).collect::<Vec<_>>());
    Ok(())
}

/// Tokens, weights, scores and groups of each answer are its own.
fn check_responses(
    buffer: &RolloutBuffer,
    groups: &[Group],
    capacity: Capacity,
) -> Result<(), TestCaseError> {
    let responses = buffer.read_responses(gpu()).unwrap();
    let all: Vec<prefgrad::kernels::policy::Response> = buffer.responses().read(gpu()).unwrap();
    let lens: Vec<u32> = buffer.lens().read(gpu()).unwrap();
    let mut next = responses.iter();
    for (slot, batch) in buffer.batches().iter().enumerate() {
        prop_assert_eq!(lens[slot] as usize, batch.targets.len());
        for (answer, list) in batch.answers.iter().zip(&batch.answer_lists.lists) {
            let group = &groups[batch.lines[answer.record as usize] - 1];
            let own = &group.answers[answer.index as usize];
            let response = next.next().unwrap();
            prop_assert_eq!(response.score, group.scores[answer.index as usize]);
            let start = response.group_start as usize;
            prop_assert_eq!(start / capacity.answers, slot);
            let members = &all[start..start + response.group_len as usize];
            let scores: Vec<f32> = members.iter().map(|r| r.score).collect();
            prop_assert_eq!(&scores, &group.scores);
            let rows = &batch.answer_lists.rows[list.start as usize..list.end as usize];
            let targets = rows.iter().map(|&row| batch.targets[row as usize]);
            let (tokens, weights): (Vec<u32>, Vec<f32>) =
                targets.map(|target| (target.token, target.weight)).unzip();
            prop_assert_eq!(&tokens, own);
            prop_assert!(weights.iter().all(|&w| w == 1.0 / own.len() as f32));
        }
    }
    prop_assert!(next.next().is_none());
    let used = all.iter().filter(|response| response.group_len > 0).count();
    prop_assert_eq!(used, responses.len());
    Ok(())
}

#[test]
fn a_buffer_refuses_what_it_was_not_made_for() {
    let capacity = policy_capacity(40);
    let error = RolloutBuffer::new(gpu(), capacity, 1, 4, (3, 41))
        .err()
        .unwrap();
    assert!(error.to_string().contains("batch_tokens"), "{error}");
    let mut buffer = RolloutBuffer::new(gpu(), capacity, 1, 1, (2, 30)).unwrap();
    let many: Vec<Group> = (0..4).map(|i| group(i, 8, &[8, 8])).collect();
    let error = buffer.fill(gpu(), &many, 1, |_| 1.0).unwrap_err();
    assert!(error.to_string().contains("micro-batches"), "{error}");
    let empty = [group(0, 3, &[2, 0])];
    assert!(buffer.fill(gpu(), &empty, 1, |_| 1.0).is_err());
    buffer.fill(gpu(), &many[..1], 1, |_| 1.0).unwrap();
    assert_eq!(buffer.read_responses(gpu()).unwrap().len(), 2);
}
