//! A made-up world with a known preference: what people like about short answers, and how surely
//! they tell two apart.

use std::collections::BTreeSet;

use prefgrad::data::Random;
use serde_json::{Value, json};

/// How far apart two answers must be for people to tell them apart reliably: a difference of this
/// much gives the better one odds of e to 1.
const HESITATION: f64 = 0.5;
/// The most phrases that a writer says, and that people care to read.
const LONGEST: usize = 4;
/// What people think of a phrase that was said before, is one too many, or is none.
const ANNOYANCE: f64 = -1.0;

const OBJECTS: [&str; 12] = [
    "lamp", "clock", "oven", "radio", "kettle", "fan", "tap", "door", "bike", "chair", "window",
    "gate",
];
const QUESTIONS: [&str; 6] = [
    "How do I fix my {}?",
    "My {} is broken.",
    "Can you help with the {}?",
    "What is wrong with this {}?",
    "Why does my {} not work?",
    "I need a hand with my {}.",
];
/// What is said, and what it adds to an answer.
const PHRASES: [(&str, f64); 20] = [
    ("open it up", 1.0),
    ("clean the inside", 1.0),
    ("tighten the screw", 1.0),
    ("replace the seal", 1.0),
    ("use a small key", 1.0),
    ("turn it off first", 0.5),
    ("ask a friend", 0.5),
    ("read the label", 0.5),
    ("happy to help", 0.4),
    ("thank you for asking", 0.4),
    ("well", 0.0),
    ("you know", 0.0),
    ("as they say", 0.0),
    ("let me see", 0.0),
    ("by the way", 0.0),
    ("so to speak", 0.0),
    ("maybe", -0.4),
    ("i guess", -0.4),
    ("who cares", -1.0),
    ("you fool", -1.0),
];

/// A question about a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    form: usize,
    object: usize,
}

impl Question {
    /// All questions there are, in an order of the seed's.
    pub fn all(random: &mut Random) -> Vec<Self> {
        let mut all: Vec<Self> = (0..QUESTIONS.len() * OBJECTS.len())
            .map(|index| Self {
                form: index % QUESTIONS.len(),
                object: index / QUESTIONS.len(),
            })
            .collect();
        random.shuffle(&mut all);
        all
    }

    /// The question's text, with the line break that an answer follows.
    pub fn text(self) -> String {
        QUESTIONS[self.form].replace("{}", OBJECTS[self.object]) + "\n"
    }
}

/// What a writer who does not care answers: one to four phrases, good and bad.
pub fn demonstration(random: &mut Random) -> String {
    let said: Vec<&str> = (0..1 + random.below(LONGEST))
        .map(|_| PHRASES[random.below(PHRASES.len())].0)
        .collect();
    said.join(", ") + "."
}

/// How much people like an answer: known here, hidden from every model.
///
/// People go by the sum of what its phrases are worth. Phrases that are repeated, beyond the
/// fourth, or none at all annoy them. Writers never say more than four, so comparisons of their
/// answers do not tell.
pub fn utility(answer: &str) -> f64 {
    let mut said = BTreeSet::new();
    let mut values = Vec::new();
    for piece in answer.split([',', '.']) {
        let piece = piece.split_whitespace().collect::<Vec<_>>().join(" ");
        if !piece.is_empty() {
            let known = PHRASES.iter().find(|(phrase, _)| *phrase == piece);
            let value = known.map(|(_, value)| *value);
            let fresh = said.insert(piece) && said.len() <= LONGEST;
            values.push(value.filter(|_| fresh).unwrap_or(ANNOYANCE));
        }
    }
    if values.is_empty() {
        values.push(ANNOYANCE);
    }
    // Utilities are sums of tenths: round away what floating point adds.
    (values.iter().sum::<f64>() * 10.0).round() / 10.0
}

/// Whether a person picks the first of two answers: the better one more often the further they
/// are apart (Bradley and Terry 1952, doi:10.2307/2334029).
pub fn prefers_first(utilities: [f64; 2], random: &mut Random) -> bool {
    let odds = ((utilities[0] - utilities[1]) / HESITATION).exp();
    f64::from(random.uniform()) < odds / (1.0 + odds)
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
        .chain(OBJECTS)
        .chain(phrases)
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
