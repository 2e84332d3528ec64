//! A made-up world with a known preference: what people like about short answers, and how often
//! they err when they compare two.

use std::collections::BTreeSet;

use prefgrad::data::Random;
use serde_json::{Value, json};

/// How often a person picks the answer they like less.
pub const ERROR_RATE: f64 = 0.10;
/// How often a writer speaks of something else than was asked about.
const ASTRAY: f32 = 0.10;
/// The most phrases that people care to read.
const PATIENCE: usize = 4;
/// What people think of a phrase that is off the topic, said before, one too many, or no phrase.
const ANNOYANCE: f64 = -1.0;

const OBJECTS: [&str; 12] = [
    "tap", "door", "lamp", "clock", "bike", "oven", "radio", "chair", "kettle", "window", "drill",
    "fan",
];
const QUESTIONS: [&str; 6] = [
    "How do I fix my {}?",
    "My {} is broken.",
    "Can you help with the {}?",
    "What is wrong with this {}?",
    "Why does my {} not work?",
    "I need a hand with my {}.",
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

/// A question, and what it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    form: usize,
    object: usize,
}

impl Question {
    /// All questions there are.
    pub fn all() -> Vec<Self> {
        (0..QUESTIONS.len() * OBJECTS.len())
            .map(|index| Self {
                form: index % QUESTIONS.len(),
                object: index / QUESTIONS.len(),
            })
            .collect()
    }

    /// The question's text, with the line break that an answer follows.
    pub fn text(self) -> String {
        QUESTIONS[self.form].replace("{}", OBJECTS[self.object]) + "\n"
    }

    /// What a writer who was paid by the hour answers: two to four phrases, good and bad.
    pub fn demonstration(self, random: &mut Random) -> String {
        let mut phrases: Vec<&str> = PHRASES.iter().map(|(phrase, _)| *phrase).collect();
        let said: Vec<String> = (0..2 + random.below(PATIENCE - 1))
            .map(|_| {
                let phrase = phrases.swap_remove(random.below(phrases.len()));
                let object = match random.uniform() < ASTRAY {
                    true => random.below(OBJECTS.len()),
                    false => self.object,
                };
                phrase.replace("{}", OBJECTS[object])
            })
            .collect();
        said.join(", ") + "."
    }

    /// How much people like an answer: known here, hidden from every model.
    ///
    /// People go by the sum of its phrases, and count the last one twice: what is said at the end
    /// is remembered best (the peak-end rule, Kahneman et al. 1993,
    /// doi:10.1111/j.1467-9280.1993.tb00589.x), so counting words alone cannot find it. Phrases
    /// about something else, repeated, beyond the fourth, or that are none annoy them.
    pub fn utility(self, answer: &str) -> f64 {
        let mut said = BTreeSet::new();
        let mut values = Vec::new();
        let pieces = answer.split([',', '.']).map(str::trim);
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let fresh = said.insert(piece) && said.len() <= PATIENCE;
            let value = self.value(piece).filter(|_| fresh);
            values.push(value.unwrap_or(ANNOYANCE));
        }
        let last = values.last().copied().unwrap_or(ANNOYANCE);
        // Utilities are sums of tenths: round away what floating point adds.
        ((values.iter().sum::<f64>() + last) * 10.0).round() / 10.0
    }

    /// What a phrase is worth as an answer to this question.
    fn value(self, piece: &str) -> Option<f64> {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let piece = words(piece);
        let object = OBJECTS[self.object];
        PHRASES
            .iter()
            .find(|(phrase, _)| phrase.replace("{}", object) == piece)
            .map(|(_, value)| *value)
    }
}

/// Which of two answers a person picks: the one they like more, but for [`ERROR_RATE`].
pub fn prefers_first(utilities: [f64; 2], random: &mut Random) -> bool {
    let errs = f64::from(random.uniform()) < ERROR_RATE;
    (utilities[0] > utilities[1]) != errs
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
