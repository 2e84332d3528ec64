//! Models and tokenizers in the folders they are kept in.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use prefgrad::data::{ByteTokenizer, ChatTemplate, Message, Tokenizer, Turns};
use prefgrad::model::{Gpt2Config, ModelConfig, Policy, load_weights, save_language_model};
use serde_json::Value;

use crate::chat_template::JinjaTemplate;
use crate::hf_tokenizer::HfTokenizer;

/// What may stand beside a `tokenizer.json` and belongs to it.
const BESIDE: [&str; 3] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Says how a model is sampled from, and where its answers end.
const GENERATION: &str = "generation_config.json";

/// A tokenizer, the file it came from, and the chat template beside it.
#[derive(Clone)]
pub struct LoadedTokenizer {
    /// `None`: bytes.
    file: Option<PathBuf>,
    inner: Rc<dyn Tokenizer>,
    template: Option<Rc<JinjaTemplate>>,
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
    /// As [`HfTokenizer::load`] and [`JinjaTemplate::beside`].
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let file = path.map(|path| match path.is_dir() {
            true => path.join("tokenizer.json"),
            false => path.to_owned(),
        });
        let inner: Rc<dyn Tokenizer> = match &file {
            Some(file) => Rc::new(HfTokenizer::load(file)?),
            None => Rc::new(ByteTokenizer),
        };
        let template = match &file {
            Some(file) => JinjaTemplate::beside(file)?.map(Rc::new),
            None => None,
        };
        Ok(Self {
            file,
            inner,
            template,
        })
    }

    /// The model's chat template; `None`: the library's turns.
    pub fn template(&self) -> Option<&dyn ChatTemplate> {
        let template = self.template.as_deref()?;
        Some(template)
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

    /// The tokens of a conversation that the user opens with `message`, up to where the answer
    /// begins.
    ///
    /// # Errors
    ///
    /// What the template and the tokenizer report.
    pub fn opened_by(&self, message: &str) -> Result<Vec<u32>> {
        let template = self.template().unwrap_or(&Turns);
        let text = template.render(&[Message::new("user", message)], true)?;
        Ok(match template.writes_special_tokens() {
            true => self.encode(&text)?,
            false => self.encode_text(&text)?,
        })
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
        copy(file, &folder.join("tokenizer.json"))?;
        for name in BESIDE {
            copy(&file.with_file_name(name), &folder.join(name))?;
        }
        Ok(())
    }

    /// The tokens that end an answer: the end-of-text token, and those that the
    /// `generation_config.json` beside the tokenizer lists as `eos_token_id`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or lists what is no token of a vocabulary of `vocab_size`.
    pub fn stop_tokens(&self, vocab_size: usize) -> Result<Vec<u32>> {
        let mut tokens: Vec<u32> = self.eos_token_id().into_iter().collect();
        let path = match &self.file {
            Some(file) => file.with_file_name(GENERATION),
            None => return Ok(tokens),
        };
        if !path.exists() {
            return Ok(tokens);
        }
        let config: Value = serde_json::from_slice(&read(&path)?)
            .with_context(|| format!("{}: not JSON", path.display()))?;
        let listed = match &config["eos_token_id"] {
            Value::Null => &[],
            Value::Array(ids) => &ids[..],
            one => std::slice::from_ref(one),
        };
        for id in listed {
            match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) if (id as usize) < vocab_size => tokens.push(id),
                _ => bail!(
                    "{}: `eos_token_id` has {id}, which is no token of the model's {vocab_size}",
                    path.display()
                ),
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }
}

/// Copies a file that may be missing, or be where it should go.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let itself = to.exists() && to.canonicalize()? == from.canonicalize().unwrap_or_default();
    if from.exists() && !itself {
        std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The configuration of the model in `folder`, as it stands there. A model may have more tokens than
/// its tokenizer, as tables padded to a round size do.
///
/// # Errors
///
/// As [`ModelConfig::read`], and where the tokenizer has more tokens than the model.
pub fn read_config(folder: &Path, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    let config = ModelConfig::read(folder)?;
    if tokenizer.vocab_size() > config.vocab_size {
        bail!(
            "the tokenizer knows {} tokens, the model in {} {}: use the tokenizer that belongs to it",
            tokenizer.vocab_size(),
            folder.display(),
            config.vocab_size
        );
    }
    Ok(config)
}

/// As [`read_config`], with the tokenizer's special tokens.
///
/// # Errors
///
/// As [`read_config`].
pub fn config_of(folder: &Path, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    let config = with_special_tokens(read_config(folder, tokenizer)?, tokenizer);
    config.validate("the model's configuration")?;
    Ok(config)
}

/// The configuration of a new GPT-2 that reads this tokenizer's tokens.
///
/// # Errors
///
/// As [`ModelConfig::validate`].
pub fn new_gpt2(
    tokenizer: &dyn Tokenizer,
    context: usize,
    (layers, width, heads): (usize, usize, usize),
) -> Result<ModelConfig> {
    let config: ModelConfig = Gpt2Config {
        vocab_size: tokenizer.vocab_size(),
        n_positions: context,
        n_embd: width,
        n_layer: layers,
        n_head: heads,
        n_inner: None,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
        pad_token_id: None,
        tie_word_embeddings: true,
    }
    .into();
    let config = with_special_tokens(config, tokenizer);
    config.validate("the model's options")?;
    Ok(config)
}

/// The configuration in `file`, a `config.json`, for a new model that reads this tokenizer's tokens:
/// its shape is the file's.
///
/// # Errors
///
/// As [`ModelConfig::from_json`], and where the tokenizer has more tokens than the shape.
pub fn new_config_of(file: &Path, tokenizer: &dyn Tokenizer) -> Result<ModelConfig> {
    let place = file.display().to_string();
    let json: Value =
        serde_json::from_slice(&read(file)?).with_context(|| format!("{place}: not JSON"))?;
    let config = with_special_tokens(ModelConfig::from_json(&json, &place)?, tokenizer);
    if tokenizer.vocab_size() > config.vocab_size {
        bail!(
            "the tokenizer knows {} tokens, {place} {}: set its vocab_size to that at least",
            tokenizer.vocab_size(),
            config.vocab_size
        );
    }
    config.validate(&place)?;
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
    tokenizer.copy_into(folder)?;
    match &tokenizer.file {
        Some(file) => copy(&file.with_file_name(GENERATION), &folder.join(GENERATION)),
        None => Ok(()),
    }
}
