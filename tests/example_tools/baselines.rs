//! The two baselines, by hand and on real comparisons.

use example_tools::baseline::{AnswerPair, BagOfWords, longer_answer, split_dialogue};
use example_tools::files::open_text;
use example_tools::statistics::sigmoid;
use prefgrad::data::{ReadOptions, read_records, split_by_prompt};

use crate::{close, shared};

#[test]
fn the_prompt_ends_with_the_last_shared_turn() {
    let pair = split_dialogue(
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes é",
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes è",
    );
    assert_eq!((pair.chosen, pair.rejected), (" yes é", " yes è"));
    let pair = split_dialogue("same start, one", "same start, two");
    assert_eq!(pair.chosen, "same start, one");
}

#[test]
fn length_is_counted_in_characters() {
    let pair = |chosen, rejected| AnswerPair { chosen, rejected };
    let pairs = [pair("äöü", "abcd"), pair("abcde", "abcd"), pair("ab", "äö")];
    close(longer_answer(&pairs).value, 0.5);
}

/// One word, once in each chosen answer: with x = log 2, θ solves λ θ = n x σ(-x θ).
#[test]
fn the_fit_is_the_minimum() {
    let pairs = [AnswerPair {
        chosen: "Good!",
        rejected: "",
    }; 8];
    let x = 2f64.ln();
    let mut theta = 0.0;
    for _ in 0..200 {
        theta = 0.5 * theta + 0.5 * (8.0 * x * sigmoid(-x * theta) / 2.0);
    }
    let model = BagOfWords::fit(&pairs, 2.0);
    assert!((model.gap(&pairs[0]) - x * theta).abs() < 1e-6);
    let swapped = AnswerPair {
        chosen: "unknown words",
        rejected: "good GOOD",
    };
    assert!((model.gap(&swapped) + 3f64.ln() * theta).abs() < 1e-6);
}

#[test]
fn clear_data_is_fitted_closely() {
    let pairs = [AnswerPair {
        chosen: "good",
        rejected: "bad",
    }; 20];
    let gap = BagOfWords::fit_cross_validated(&pairs).gap(&pairs[0]);
    assert_eq!(gap, BagOfWords::fit(&pairs, 1.0).gap(&pairs[0]));
    assert!(gap > BagOfWords::fit(&pairs, 3.0).gap(&pairs[0]));
}

/// Baselines on the held-out part of real comparisons.
fn on_file(name: &str) -> Option<(f64, f64)> {
    let path = shared(name)?;
    let reader = open_text(&path).unwrap();
    let read = read_records(reader, name, ReadOptions::default()).unwrap();
    let (train, held_out) = split_by_prompt(&read.records, 0.15, 0).unwrap();
    let pairs = |indices: &[usize]| -> Vec<AnswerPair> {
        let of = |index: &usize| {
            let responses = &read.records[*index].responses;
            split_dialogue(&responses[0], &responses[1])
        };
        indices.iter().map(of).collect()
    };
    let (train, held_out) = (pairs(&train), pairs(&held_out));
    let longer = longer_answer(&held_out);
    let words = BagOfWords::fit_cross_validated(&train).accuracy(&held_out);
    println!("{name}: longer answer {longer}, bag of words {words}");
    Some((longer.value, words.value))
}

#[test]
fn helpful_answers_are_longer_and_have_their_words() {
    if let Some((longer, words)) = on_file("pairwise/hh-helpful-base-test.jsonl.gz") {
        assert!((0.52..0.63).contains(&longer), "{longer}");
        assert!((0.57..0.68).contains(&words), "{words}");
    }
}

#[test]
fn harmless_answers_are_not_longer_but_have_their_words() {
    if let Some((longer, words)) = on_file("pairwise/hh-harmless-base-test.jsonl.gz") {
        assert!((0.41..0.52).contains(&longer), "{longer}");
        assert!((0.59..0.70).contains(&words), "{words}");
    }
}
