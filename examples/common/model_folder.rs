//! Models and tokenizers in the folders they are kept in.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use prefgrad::data::{ByteTokenizer, Tokenizer};
use prefgrad::model::{ModelConfig, Policy, load_weights, save_language_model};
use serde_json::Value;

use crate::hf_tokenizer::HfTokenizer;

/// A tokenizer, and the file it came from.
#[derive(Clone)]
pub struct LoadedTokenizer {
    /// `None`: bytes.
    file: Option<PathBuf>,
    inner: Rc<dyn Tokenizer>,
}

impl Deref for LoadedTokenizer {
    type Target = dyn Tokenizer;

    fn deref(&self) -> &Self::Target {
        self.inner.as_ref()
    }
}

impl LoadedTokenizer {
    /// The tokenizer of a file or of a model's folder; without a path, bytes.
    ///
    /// # Errors
    ///
    /// As [`HfTokenizer::load`].
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let file = path.map(|path| match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        });
        let inner: Rc<dyn Tokenizer> = match &file {
            Some(file) => Rc::new(HfTokenizer::load(file)?),
            None => Rc::new(ByteTokenizer),
        };
        Ok(Self { file, inner })
    }

    /// The tokenizer in a model's folder; bytes where there is none.
    ///
    /// # Errors
    ///
    /// As [`HfTokenizer::load`].
    pub fn of_model(folder: &Path) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        Self::load(file.exists().then_some(file.as_path()))
    }

    /// Whether both give the same tokens: the files say the same, and name the same special tokens.
    ///
    /// # Errors
    ///
    /// A file cannot be read any more.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let special = |t: &Self| (t.eos_token_id(), t.pad_token_id());
        if special(self) != special(other) {
            return Ok(false);
        }
        let (a, b) = match (&self.file, &other.file) {
            (None, None) => return Ok(true),
            (Some(a), Some(b)) => (read(a)?, read(b)?),
            _ => return Ok(false),
        };
        let same_json = || -> Result<bool> {
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes);
            Ok(json(&a)? == json(&b)?)
        };
        Ok(a == b || same_json()?)
    }

    /// The text of tokens; a token that the tokenizer does not know, which a model with a larger
    /// table can sample, becomes U+FFFD.
    pub fn text(&self, tokens: &[u32]) -> String {
        self.decode(tokens).unwrap_or_else(|_| {
            let one = |token: &u32| self.decode(&[*token]).unwrap_or_else(|_| "\u{fffd}".into());
            tokens.iter().map(one).collect()
        })
    }

    /// Puts the tokenizer's files into `folder`, so that a model there is complete.
    ///
    /// # Errors
    ///
    /// A file cannot be copied.
    pub fn copy_into(&self, folder: &Path) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let config = "tokenizer_config.json";
        for (from, name) in [
            (file.clone(), "tokenizer.json"),
            (file.with_file_name(config), config),
        ] {
            let to = folder.join(name);
            let itself =
                to.exists() && to.canonicalize()? == from.canonicalize().unwrap_or_default();
            if from.exists() && !itself {
                std::fs::copy(&from, &to)
                    .with_context(|| format!("cannot copy {}", from.display()))?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The configuration of the model in `folder`, with the tokenizer's special tokens.
///
/// # Errors
///
/// As [`ModelConfig::read`], and where the tokenizer has more tokens than the model.
pub fn config_of(folder: &Path, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    let config = with_special_tokens(ModelConfig::read(folder)?, tokenizer);
    if tokenizer.vocab_size() > config.vocab_size {
        bail!(
            "the tokenizer knows {} tokens, the model in {} {}: use the tokenizer that belongs to it",
            tokenizer.vocab_size(),
            folder.display(),
            config.vocab_size
        );
    }
    config.validate("the model's configuration")?;
    Ok(config)
}

/// The special tokens are the tokenizer's. As TRL does: one without a padding token pads with its
/// end-of-text token.
pub fn with_special_tokens(config: ModelConfig, tokenizer: &dyn Tokenizer) -> ModelConfig {
    let eos_token_id = tokenizer.eos_token_id();
    ModelConfig {
        eos_token_id,
        pad_token_id: tokenizer.pad_token_id().or(eos_token_id),
        ..config
    }
}

/// Fills a policy's weights from a folder; a value head starts from zero.
///
/// # Errors
///
/// As [`load_weights`], and where a language head of its own is missing.
pub fn load_policy(policy: &Policy, folder: &Path) -> Result<()> {
    let (gpu, parameters) = (policy.gpu(), policy.parameters());
    let whole = load_weights(gpu, parameters, folder)?;
    if whole || policy.config().tie_word_embeddings {
        return Ok(());
    }
    let mut empty = true;
    for window in parameters.windows("lm_head.weight")? {
        empty &= window.weight.read::<f32>(gpu)?.iter().all(|&x| x == 0.0);
    }
    if empty {
        bail!(
            "{} has no language head (`lm_head.weight`), and its config.json does not tie it to \
             the token table",
            folder.display()
        );
    }
    Ok(())
}

/// Writes a policy and its tokenizer into a folder that `transformers` loads.
///
/// # Errors
///
/// What the device reports, and files that cannot be written.
pub fn save_policy(policy: &Policy, tokenizer: &LoadedTokenizer, folder: &Path) -> Result<()> {
    let parameters = policy.parameters();
    let weights = parameters.read(policy.gpu(), |chunk| &chunk.weights)?;
    save_language_model(parameters, &weights, policy.config(), folder)?;
    tokenizer.copy_into(folder)
}
