//! A made-up world with a known preference: what people like about short answers, and how often
//! they err when they compare two.

use std::collections::BTreeSet;

use prefgrad::data::Random;
use serde_json::{Value, json};

/// How often a person picks the answer they like less.
pub const ERROR_RATE: f64 = 0.10;

const OBJECTS: [&str; 8] = [
    "tap", "door", "lamp", "clock", "bike", "oven", "radio", "chair",
];
const QUESTIONS: [&str; 4] = [
    "How do I fix my {}?",
    "My {} is broken.",
    "Can you help with the {}?",
    "What is wrong with this {}?",
];
/// Phrases, and what each adds to an answer's utility; `{}` is the object that was asked about.
const PHRASES: [(&str, f64); 16] = [
    ("check the {}", 1.0),
    ("open the {}", 1.0),
    ("clean the {}", 1.0),
    ("oil the {}", 1.0),
    ("use a small key", 0.5),
    ("turn it off first", 0.5),
    ("happy to help", 0.4),
    ("thank you for asking", 0.4),
    ("well", 0.0),
    ("you know", 0.0),
    ("as they say", 0.0),
    ("maybe", -0.4),
    ("i guess", -0.4),
    ("who cares", -1.0),
    ("you fool", -1.0),
    ("that is obvious", -1.0),
];

/// An answer and what people think of it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// How much people like it: known here, hidden from the reward model.
    pub utility: f64,
}

/// A question, two answers, and a person's choice.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The question.
    pub prompt: String,
    /// The answer that the person picked, then the other.
    pub answers: [Answer; 2],
}

impl Comparison {
    /// Whether the person picked the answer that people like more.
    pub fn is_right(&self) -> bool {
        self.answers[0].utility > self.answers[1].utility
    }
}

/// `count` comparisons, no two with the same question and answers' order.
pub fn comparisons(count: usize, seed: u64) -> Vec<Comparison> {
    let mut random = Random::new(seed, 0);
    (0..count).map(|_| comparison(&mut random)).collect()
}

fn comparison(random: &mut Random) -> Comparison {
    let object = OBJECTS[random.below(OBJECTS.len())];
    let prompt = QUESTIONS[random.below(QUESTIONS.len())].replace("{}", object) + "\n";
    loop {
        let (a, b) = (answer(random, object), answer(random, object));
        if a.utility == b.utility {
            continue;
        }
        let errs = f64::from(random.uniform()) < ERROR_RATE;
        let answers = if (a.utility > b.utility) != errs {
            [a, b]
        } else {
            [b, a]
        };
        return Comparison { prompt, answers };
    }
}

/// Two to four phrases. People go by their sum, and count the last one twice: what is said at the
/// end is remembered best (the peak-end rule, Kahneman et al. 1993, doi:10.1111/j.1467-9280.1993.tb00589.x).
/// Counting words alone cannot find that.
fn answer(random: &mut Random, asked: &str) -> Answer {
    let chosen: Vec<(&str, f64)> = (0..2 + random.below(3))
        .map(|_| PHRASES[random.below(PHRASES.len())])
        .collect();
    let sum: f64 = chosen.iter().map(|(_, value)| value).sum();
    let last = chosen.last().map_or(0.0, |(_, value)| *value);
    let phrases: Vec<String> = chosen
        .iter()
        .map(|(phrase, _)| phrase.replace("{}", asked))
        .collect();
    Answer {
        text: phrases.join(", ") + ".",
        // Utilities are sums of tenths: round away what floating point adds.
        utility: ((sum + last) * 10.0).round() / 10.0,
    }
}

/// The end of a text.
pub const EOS: &str = "<eos>";
/// Padding.
pub const PAD: &str = "<pad>";

/// A `tokenizer.json` in Hugging Face's format that knows each word of this world.
pub fn tokenizer_json() -> Value {
    let mut words = BTreeSet::new();
    let phrases = PHRASES.iter().map(|(phrase, _)| *phrase);
    for text in QUESTIONS
        .into_iter()
        .chain(phrases)
        .chain(OBJECTS)
        .chain([", ."])
    {
        // The same split as the pre-tokenizer's: words, and runs of punctuation.
        for word in text.replace("{}", " ").split_whitespace() {
            let end = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            words.extend([end, &word[end.len()..]].map(str::to_owned));
        }
    }
    words.remove("");
    let special = [EOS, PAD, "<unk>"].map(str::to_owned);
    let vocabulary: serde_json::Map<String, Value> = special
        .into_iter()
        .chain(words)
        .enumerate()
        .map(|(id, word)| (word, json!(id)))
        .collect();
    let added: Vec<Value> = [EOS, PAD, "<unk>"]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    })
}
