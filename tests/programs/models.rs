//! Tiny models that the tests of policies share, made once.

use std::path::Path;
use std::sync::OnceLock;

use crate::run::{comparisons, small_training, succeed};

/// A file of comparisons, a policy that was fine-tuned on it and a reward model.
pub struct Models {
    folder: tempfile::TempDir,
}

impl Models {
    /// The path of something in the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A tokenizer of single characters; `ADDED` are its special tokens.
const CHARACTERS: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [ADDED],
    "normalizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false},
    "model": {"type": "WordLevel", "unk_token": "?", "vocab": VOCAB}
}"#;

/// Arguments of fine-tuning from scratch that takes a second.
pub fn small_sft<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let text = "--algorithm sft --layers 1 --width 16 --heads 2 --context 64 --batch-tokens 256 \
                --steps 60 --learning-rate 1e-2 --evaluate-every 20 --max-new-tokens 16 --judged 4";
    let mut arguments: Vec<&str> = text.split_whitespace().collect();
    arguments.extend(["--data", data, "--out", out]);
    arguments
}

/// The models, trained by whichever test comes first.
pub fn models() -> &'static Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    MODELS.get_or_init(|| {
        let models = Models {
            folder: tempfile::tempdir().unwrap(),
        };
        let data = models.path("data.jsonl");
        comparisons(Path::new(&data), 80);
        succeed("train_policy", &small_sft(&data, &models.path("sft")));
        succeed(
            "train_reward",
            &small_training(&data, &models.path("reward")),
        );
        for (name, special) in [("characters.json", false), ("with_eos.json", true)] {
            std::fs::write(models.path(name), characters(special)).unwrap();
        }
        models
    })
}

fn characters(special: bool) -> String {
    let printable = (' '..='~').chain(['\n']).map(String::from);
    let names = ["</s>", "<pad>"].map(String::from);
    let names = if special { &names[..] } else { &[] };
    let mut vocabulary = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, token) in printable.chain(names.iter().cloned()).enumerate() {
        if names.contains(&token) {
            added.push(format!(
                r#"{{"id": {id}, "content": "{token}", "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}}"#
            ));
        }
        vocabulary.insert(token, id.into());
    }
    CHARACTERS
        .replace("VOCAB", &serde_json::Value::Object(vocabulary).to_string())
        .replace("ADDED", &added.join(","))
}
