//! What stands beside a `tokenizer.json`: special tokens and the chat template.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prefgrad::{Error, Result};
use serde_json::{Map, Value};

/// `tokenizer_config.json` and `special_tokens_map.json`; empty objects where there is none.
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    json: Map<String, Value>,
    older: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the files beside the `tokenizer.json` at `tokenizer`.
    pub fn beside(tokenizer: &Path) -> Result<Self> {
        let path = tokenizer.with_file_name("tokenizer_config.json");
        Ok(Self {
            json: object(&path)?,
            older: object(&tokenizer.with_file_name("special_tokens_map.json"))?,
            path,
        })
    }

    /// Where it stands, for messages.
    pub fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// The text of the special token under `key`, such as `eos_token`.
    pub fn token(&self, key: &str) -> Option<&str> {
        let text = |fields: &'_ Map<String, Value>| fields.get(key).and_then(token_text).is_some();
        let fields = [&self.json, &self.older].into_iter().find(|f| text(f))?;
        fields.get(key).and_then(token_text)
    }

    /// All special tokens by their keys.
    pub fn tokens(&self) -> BTreeMap<String, String> {
        let named = self.older.iter().chain(&self.json);
        named
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.clone(), token_text(value)?.to_owned())))
            .collect()
    }

    /// The chat template and the file that it stands in: `chat_template.jinja`, or `chat_template`
    /// of the configuration, a text or a list of named ones, of which it is the `default`.
    pub fn chat_template(&self) -> Result<Option<(PathBuf, String)>> {
        let file = self.path.with_file_name("chat_template.jinja");
        if file.exists() {
            let text = std::fs::read_to_string(&file).map_err(|source| Error::Io {
                action: "cannot read",
                path: file.clone(),
                source,
            })?;
            return Ok(Some((file, text)));
        }
        let template = match self.json.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(named)) => named
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str()),
            Some(other) => other.as_str(),
        };
        match template {
            Some(text) => Ok(Some((self.path.clone(), text.to_owned()))),
            None => Err(Error::Model {
                place: self.place(),
                detail: "`chat_template` is neither text nor a list with one named `default`"
                    .into(),
            }),
        }
    }
}

/// A token as text, or as an object with the text as `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        action: "cannot read",
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Model {
        place: path.display().to_string(),
        detail: format!("not a JSON object: {error}"),
    })
}
