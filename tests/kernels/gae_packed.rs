//! Advantages of tokens in packed batches, where prompts are shared and a response's first target
//! is apart from its others: where the score lands, and that nothing leaks.

use prefgrad::check::values;
use prefgrad::data::{Batch, Capacity, PackOptions, Packer, Targets, TokenRecord};
use prefgrad::kernels::policy::gae::GaeOptions;
use prefgrad::kernels::policy::{Experience, KlEstimator};
use prefgrad::reference::policy::experience::Token;
use prefgrad::reference::policy::gae as reference;

use crate::gae::Setup;
use crate::tools::assert_values;

const EOS: u32 = 50;
/// Responses are cut at this many tokens.
const LIMIT: usize = 5;

/// Two prompts with several responses each, and a prompt-less one. Some end at EOS, some are cut
/// by the limit, some are one token long; the last has no prediction at all.
fn packed() -> (Batch, Vec<Vec<u32>>) {
    let record = |line, prompt: &[u32], answers: &[&[u32]]| TokenRecord {
        line,
        prompt: prompt.to_vec(),
        answers: answers.iter().map(|a| a.to_vec()).collect(),
        preferences: Vec::new(),
    };
    let records = [
        record(
            1,
            &[1, 2, 3],
            &[&[10, 11, EOS], &[12, 13, 14, 15, 16], &[EOS]],
        ),
        record(2, &[4], &[&[20, 21, 22, 23, 24], &[25], &[26, 27, 28, EOS]]),
        record(3, &[], &[&[30, 31, EOS], &[32]]),
    ];
    let capacity = Capacity {
        tokens: 64,
        segments: 16,
        answers: 16,
        pairs: 0,
        targets: 64,
    };
    let options = PackOptions {
        with_pairs: false,
        targets: Targets::Answers,
        ..PackOptions::default()
    };
    let mut packer = Packer::new(capacity, options);
    for record in &records {
        assert!(packer.try_push(record).unwrap());
    }
    let answers = records.into_iter().flat_map(|r| r.answers).collect();
    (packer.finish(1.0, 1.0, 0), answers)
}

fn list(batch: &Batch, answer: usize) -> Vec<usize> {
    let list = &batch.answer_lists.lists[answer];
    let rows = &batch.answer_lists.rows[list.start as usize..list.end as usize];
    rows.iter().map(|&n| n as usize).collect()
}

fn run_packed(
    batch: &Batch,
    tokens: &[Experience],
    scores: &[f32],
    options: &GaeOptions,
) -> Vec<Experience> {
    let lists = &batch.answer_lists;
    Setup::new(&lists.lists, &lists.rows, tokens, scores, 0.25).run(options)
}

#[test]
fn the_score_lands_on_the_last_real_token() {
    let (batch, answers) = packed();
    let token = Experience {
        logprob: -1.0,
        ref_logprob: -1.0,
        weight: 1.0,
        ..Experience::default()
    };
    let tokens = vec![token; batch.targets.len()];
    let scores: Vec<f32> = (0..answers.len()).map(|a| 10.0 + a as f32).collect();
    // Without a value, a KL or a trace, the advantage of a token is its own reward.
    let options = GaeOptions {
        gamma: 1.0,
        lambda: 0.0,
        kl_estimator: KlEstimator::K1,
    };
    let out = run_packed(&batch, &tokens, &scores, &options);
    let mut cut_by_the_limit = 0;
    let mut listed = 0;
    for (a, answer) in answers.iter().enumerate() {
        let entries = list(&batch, a);
        listed += entries.len();
        let Some((&last, before)) = entries.split_last() else {
            assert_eq!(answer.len(), 1, "only a lone token without a prompt");
            continue;
        };
        assert_eq!(batch.targets[last].token, *answer.last().unwrap());
        assert_eq!(out[last].advantage, scores[a], "response {a}");
        for &n in before {
            assert_eq!(out[n].advantage, 0.0, "response {a}, target {n}");
        }
        let first_is_apart = before.len() > 1 && before[1] != before[0] + 1;
        assert!(first_is_apart || before.len() <= 1 || a >= 6, "{entries:?}");
        cut_by_the_limit += usize::from(answer.len() == LIMIT && answer[LIMIT - 1] != EOS);
    }
    assert_eq!(cut_by_the_limit, 2);
    assert_eq!(listed, batch.targets.len());
}

#[test]
fn nothing_leaks_from_one_response_into_another() {
    let (batch, answers) = packed();
    let n = batch.targets.len();
    let [logprobs, references, estimates] = [1, 2, 3].map(|seed| values(seed, n, 2.0));
    let mut tokens: Vec<Experience> = (0..n)
        .map(|i| Experience {
            logprob: logprobs[i],
            ref_logprob: references[i],
            value: estimates[i],
            weight: 1.0,
            ..Experience::default()
        })
        .collect();
    let mut scores = values(4, answers.len(), 3.0);
    let options = GaeOptions {
        gamma: 1.0,
        lambda: 1.0,
        kl_estimator: KlEstimator::K3,
    };
    let before = run_packed(&batch, &tokens, &scores, &options);
    let wide = reference::GaeOptions {
        gamma: 1.0,
        lambda: 1.0,
        kl_coef: 0.25,
        kl_estimator: KlEstimator::K3,
    };
    for (a, &score) in scores.iter().enumerate() {
        let entries = list(&batch, a);
        let own: Vec<Token> = entries
            .iter()
            .map(|&n| Token {
                logprob: tokens[n].logprob.into(),
                ref_logprob: tokens[n].ref_logprob.into(),
                value: tokens[n].value.into(),
                weight: 1.0,
            })
            .collect();
        let (advantages, returns): (Vec<f64>, Vec<f64>) = reference::gae(&own, score.into(), &wide)
            .into_iter()
            .unzip();
        let of = |field: fn(&Experience) -> f32| -> Vec<f32> {
            entries.iter().map(|&n| field(&before[n])).collect()
        };
        assert_values(&format!("response {a}"), &of(|e| e.advantage), &advantages);
        assert_values(&format!("response {a}"), &of(|e| e.returns), &returns);
    }

    let changed = 1;
    scores[changed] += 100.0;
    let own = list(&batch, changed);
    for &n in &own {
        tokens[n].value -= 50.0;
        tokens[n].logprob += 0.5;
    }
    let after = run_packed(&batch, &tokens, &scores, &options);
    for n in 0..n {
        let same = before[n].advantage == after[n].advantage;
        assert_eq!(same, !own.contains(&n), "target {n}");
    }
}
