//! Tokenizers as Hugging Face saves them.

use std::path::Path;

use prefgrad::data::Tokenizer;
use prefgrad::{Error, Result};

use crate::tokenizer_config::TokenizerConfig;

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
    bos_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
}

impl HfTokenizer {
    /// Loads a tokenizer from its file, or from a model's folder.
    ///
    /// `eos_token` and `pad_token` are those of the `tokenizer_config.json` in the same folder.
    /// What it does not say is looked for among the tokenizer's own special tokens by the usual
    /// names (`<|endoftext|>`, `</s>`, ...; `<pad>`, `[PAD]`, ...). The token that the file's
    /// post-processor puts before a text is its [`bos_token_id`](Tokenizer::bos_token_id), which
    /// `add_bos_token` of the configuration does not change, as in `transformers` 5; what it puts
    /// behind a text is left to [`tokenise`](prefgrad::data::tokenise), which ends texts itself.
    /// Truncation and padding that the file asks for are switched off.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where a file cannot be read, [`Error::Model`] where it is not a tokenizer,
    /// names a special token that the vocabulary lacks, or puts several tokens before a text.
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
        let config = TokenizerConfig::beside(&file)?;
        let largest = inner.get_vocab(true).into_values().max();
        let vocab_size = largest.map_or(0, |id| id as usize + 1);
        let bos_token_id = first_token(&inner, vocab_size).map_err(|detail| Error::Model {
            place: place.clone(),
            detail,
        })?;
        Ok(Self {
            vocab_size,
            bos_token_id,
            eos_token_id: special_token(&config, &inner, "eos_token", &EOS_NAMES)?,
            pad_token_id: special_token(&config, &inner, "pad_token", &PAD_NAMES)?,
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

    fn bos_token_id(&self) -> Option<u32> {
        self.bos_token_id
    }

    fn eos_token_id(&self) -> Option<u32> {
        self.eos_token_id
    }

    fn pad_token_id(&self) -> Option<u32> {
        self.pad_token_id
    }
}

/// The token that the post-processor puts before a text.
fn first_token(
    tokenizer: &tokenizers::Tokenizer,
    vocab_size: usize,
) -> std::result::Result<Option<u32>, String> {
    let encoding = tokenizer
        .encode("a", true)
        .map_err(|error| format!("cannot encode a text: {error}"))?;
    let added = encoding.get_special_tokens_mask().iter();
    let added = added.take_while(|&&special| special == 1).count();
    // Where nothing of the text is left, everything is added, and some of it stands behind.
    let first = match added == encoding.len() {
        true => &[],
        false => &encoding.get_ids()[..added],
    };
    match first {
        [] => Ok(None),
        &[id] if (id as usize) < vocab_size => Ok(Some(id)),
        [id] => Err(format!(
            "its post-processor puts token {id} before a text, which is not in its vocabulary of \
             {vocab_size}"
        )),
        several => Err(format!(
            "its post-processor puts {} tokens before a text; one at most is supported",
            several.len()
        )),
    }
}

/// The token that the configuration names under `key`; where it is silent, the first of `names`
/// that is a special token.
fn special_token(
    config: &TokenizerConfig,
    tokenizer: &tokenizers::Tokenizer,
    key: &str,
    names: &[&str],
) -> Result<Option<u32>> {
    if let Some(token) = config.token(key) {
        return match tokenizer.token_to_id(token) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::Model {
                place: config.place(),
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

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        action: "cannot read",
        path: path.to_owned(),
        source,
    })
}
