//! Tokenizers as Hugging Face saves them.

use std::path::{Path, PathBuf};

use prefgrad::data::Tokenizer;
use prefgrad::{Error, Result};
use serde_json::Value;

/// End-of-text tokens by the names that model families give them, the likelier first.
const EOS_NAMES: [&str; 7] = [
    "<|endoftext|>",
    "</s>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<eos>",
];
const PAD_NAMES: [&str; 5] = [
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|padding|>",
    "<|finetune_right_pad_id|>",
];

/// A `tokenizer.json`, with the special tokens that the `tokenizer_config.json` beside it names.
#[derive(Debug, Clone)]
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    place: String,
    vocab_size: usize,
    eos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
}

impl HfTokenizer {
    /// Loads a tokenizer from its file, or from a model's folder.
    ///
    /// `eos_token` and `pad_token` are those of the `tokenizer_config.json` in the same folder.
    /// What it does not say is looked for among the tokenizer's own special tokens by the usual
    /// names (`<|endoftext|>`, `</s>`, ...; `<pad>`, `[PAD]`, ...). Truncation and padding that
    /// the file asks for are switched off.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where a file cannot be read, [`Error::Model`] where it is not a tokenizer,
    /// or names a special token that the vocabulary lacks.
    pub fn load(path: &Path) -> Result<Self> {
        let file = if path.is_dir() {
            path.join("tokenizer.json")
        } else {
            path.to_owned()
        };
        let place = file.display().to_string();
        let bytes = read(&file)?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| Error::Model {
                place: place.clone(),
                detail: format!("not a tokenizer in Hugging Face's format: {error}"),
            })?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::Model {
            place: place.clone(),
            detail: error.to_string(),
        })?;
        let config = Config::beside(&file)?;
        let largest = inner.get_vocab(true).into_values().max();
        Ok(Self {
            vocab_size: largest.map_or(0, |id| id as usize + 1),
            eos_token_id: config.special_token(&inner, "eos_token", &EOS_NAMES)?,
            pad_token_id: config.special_token(&inner, "pad_token", &PAD_NAMES)?,
            inner,
            place,
        })
    }

    fn error(&self, detail: String) -> Error {
        Error::Model {
            place: self.place.clone(),
            detail,
        }
    }
}

impl Tokenizer for HfTokenizer {
    /// Names of special tokens in the text become those tokens, as in `transformers`.
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.inner
            .encode_fast(text, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| self.error(format!("cannot encode a text: {error}")))
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(self.error(format!(
                "token {id} is not in its vocabulary of {}: it was made with another tokenizer",
                self.vocab_size
            )));
        }
        self.inner
            .decode(ids, true)
            .map_err(|error| self.error(format!("cannot decode: {error}")))
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn eos_token_id(&self) -> Option<u32> {
        self.eos_token_id
    }

    fn pad_token_id(&self) -> Option<u32> {
        self.pad_token_id
    }
}

/// `tokenizer_config.json`, an empty object where there is none.
struct Config {
    path: PathBuf,
    json: Value,
}

impl Config {
    fn beside(tokenizer: &Path) -> Result<Self> {
        let path = tokenizer.with_file_name("tokenizer_config.json");
        let json = if path.exists() {
            serde_json::from_slice(&read(&path)?).map_err(|error| Error::Model {
                place: path.display().to_string(),
                detail: format!("not JSON: {error}"),
            })?
        } else {
            Value::Null
        };
        Ok(Self { path, json })
    }

    /// The token under `key`, a string or an object with the string as `content`; or where the
    /// file is silent, the first of `names` that is a special token.
    fn special_token(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        key: &str,
        names: &[&str],
    ) -> Result<Option<u32>> {
        let entry = &self.json[key];
        if let Some(token) = entry.as_str().or_else(|| entry["content"].as_str()) {
            return match tokenizer.token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(Error::Model {
                    place: self.path.display().to_string(),
                    detail: format!("`{key}` is `{token}`, which the tokenizer does not have"),
                }),
            };
        }
        let special = tokenizer.get_added_tokens_decoder();
        Ok(names.iter().find_map(|name| {
            let id = tokenizer.token_to_id(name)?;
            special
                .get(&id)
                .is_some_and(|token| token.special)
                .then_some(id)
        }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        action: "cannot read",
        path: path.to_owned(),
        source,
    })
}
