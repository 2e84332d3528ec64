//! A made-up world with a known preference: what people like about short answers, and how often
//! they err when they compare two.

use std::collections::BTreeSet;

use prefgrad::data::Random;
use serde_json::{Value, json};

/// How often a person picks the answer they like less.
pub const ERROR_RATE: f64 = 0.10;
/// How often a writer thinks before giving advice.
const CARE: f32 = 0.25;
/// The most phrases that people care to read.
const PATIENCE: usize = 4;
/// What people think of a phrase that was said before, is one too many, or is none.
const ANNOYANCE: f64 = -1.0;
/// What people think of advice for another kind of thing.
const OFF_TOPIC: f64 = -0.5;

/// Things that run on electricity, and things that have hinges and screws.
const OBJECTS: [[&str; 6]; 2] = [
    ["lamp", "clock", "oven", "radio", "kettle", "fan"],
    ["tap", "door", "bike", "chair", "window", "gate"],
];
const QUESTIONS: [&str; 6] = [
    "How do I fix my {}?",
    "My {} is broken.",
    "Can you help with the {}?",
    "What is wrong with this {}?",
    "Why does my {} not work?",
    "I need a hand with my {}.",
];
/// Good advice for each kind of thing, worth 1 there.
const ADVICE: [[&str; 5]; 2] = [
    [
        "check the plug",
        "change the fuse",
        "unplug it first",
        "test the cable",
        "look at the switch",
    ],
    [
        "oil the hinge",
        "tighten the screw",
        "clean the joint",
        "replace the seal",
        "use a small key",
    ],
];
/// What else is said, and what it adds to any answer.
const MANNERS: [(&str, f64); 10] = [
    ("happy to help", 0.4),
    ("thank you for asking", 0.4),
    ("well", 0.0),
    ("you know", 0.0),
    ("as they say", 0.0),
    ("let me see", 0.0),
    ("maybe", -0.4),
    ("i guess", -0.4),
    ("who cares", -1.0),
    ("you fool", -1.0),
];

/// A question, and what it asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    form: usize,
    kind: usize,
    object: usize,
}

impl Question {
    /// All questions there are, in an order of the seed's.
    pub fn all(random: &mut Random) -> Vec<Self> {
        let mut all = Vec::new();
        for form in 0..QUESTIONS.len() {
            for kind in 0..OBJECTS.len() {
                let of_kind = OBJECTS[kind].len();
                all.extend((0..of_kind).map(|object| Self { form, kind, object }));
            }
        }
        for last in (1..all.len()).rev() {
            all.swap(last, random.below(last + 1));
        }
        all
    }

    /// The question's text, with the line break that an answer follows.
    pub fn text(self) -> String {
        QUESTIONS[self.form].replace("{}", OBJECTS[self.kind][self.object]) + "\n"
    }

    /// What a writer who is paid by the hour answers: two to four phrases, good and bad.
    pub fn demonstration(self, random: &mut Random) -> String {
        let mut said: Vec<&str> = Vec::new();
        let count = 2 + random.below(PATIENCE - 1);
        while said.len() < count {
            let pick = random.below(20);
            let kind = match random.uniform() < CARE {
                true => self.kind,
                false => pick / 5 % 2,
            };
            let phrase = match pick {
                0..10 => ADVICE[kind][pick % 5],
                _ => MANNERS[pick - 10].0,
            };
            if !said.contains(&phrase) {
                said.push(phrase);
            }
        }
        said.join(", ") + "."
    }

    /// How much people like an answer: known here, hidden from every model.
    ///
    /// People go by the sum of its phrases, and count the last one twice: what is said at the end
    /// is remembered best (the peak-end rule, Kahneman et al. 1993,
    /// doi:10.1111/j.1467-9280.1993.tb00589.x). Advice is worth something for the right kind of
    /// thing only, so counting words cannot find it. Phrases that are repeated, beyond the fourth,
    /// or none at all annoy them.
    pub fn utility(self, answer: &str) -> f64 {
        let mut said = BTreeSet::new();
        let mut values = Vec::new();
        for piece in answer.split([',', '.']) {
            let piece = piece.split_whitespace().collect::<Vec<_>>().join(" ");
            if !piece.is_empty() {
                let value = self.value(&piece);
                let fresh = said.insert(piece) && said.len() <= PATIENCE;
                values.push(value.filter(|_| fresh).unwrap_or(ANNOYANCE));
            }
        }
        let last = values.last().copied().unwrap_or(ANNOYANCE);
        // Utilities are sums of tenths: round away what floating point adds.
        ((values.iter().sum::<f64>() + last) * 10.0).round() / 10.0
    }

    /// What a phrase is worth as an answer to this question.
    fn value(self, phrase: &str) -> Option<f64> {
        let kind = ADVICE.iter().position(|advice| advice.contains(&phrase));
        match kind {
            Some(kind) if kind == self.kind => Some(1.0),
            Some(_) => Some(OFF_TOPIC),
            None => {
                let known = MANNERS.iter().find(|(text, _)| *text == phrase);
                known.map(|(_, value)| *value)
            }
        }
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
    let manners = MANNERS.iter().map(|(phrase, _)| *phrase);
    for text in QUESTIONS
        .into_iter()
        .chain(OBJECTS.into_iter().flatten())
        .chain(ADVICE.into_iter().flatten())
        .chain(manners)
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
