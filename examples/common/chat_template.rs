//! Chat templates in Jinja, as `transformers` renders them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, context};
use prefgrad::data::{ChatTemplate, Message};
use prefgrad::{Error, Result};

use crate::python_json::to_json;
use crate::tokenizer_config::TokenizerConfig;

const NAME: &str = "chat template";

/// A model's chat template.
///
/// It is rendered as `transformers`' `apply_chat_template` renders it (version 5): blocks trimmed,
/// with `raise_exception`, `strftime_now`, its `tojson`, Python's methods of strings, lists and
/// dictionaries, `break` and `continue`, and the tokenizer's special tokens as `bos_token`,
/// `eos_token` and so on. There are no tools and no documents.
#[derive(Debug)]
pub struct JinjaTemplate {
    environment: Environment<'static>,
    special_tokens: Value,
    place: String,
}

impl JinjaTemplate {
    /// The template that belongs to the tokenizer in the file `tokenizer`: `chat_template.jinja`
    /// beside it, or `chat_template` in its `tokenizer_config.json`; `None` where it has none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where a file cannot be read, [`Error::Model`] where it is no template.
    pub fn beside(tokenizer: &Path) -> Result<Option<Self>> {
        let config = TokenizerConfig::beside(tokenizer)?;
        let Some((path, source)) = config.chat_template()? else {
            return Ok(None);
        };
        Self::new(&source, config.tokens(), path.display().to_string()).map(Some)
    }

    fn new(source: &str, special_tokens: BTreeMap<String, String>, place: String) -> Result<Self> {
        let environment = environment(source).map_err(|error| Error::Model {
            place: place.clone(),
            detail: format!("the chat template cannot be read: {error}"),
        })?;
        Ok(Self {
            environment,
            special_tokens: special_tokens.into(),
            place,
        })
    }
}

impl ChatTemplate for JinjaTemplate {
    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let message = |m: &Message| context! { role => &m.role, content => &m.content };
        let messages: Vec<Value> = messages.iter().map(message).collect();
        let variables = context! {
            messages,
            tools => (),
            documents => (),
            add_generation_prompt,
            ..self.special_tokens.clone()
        };
        let template = self.environment.get_template(NAME);
        template
            .and_then(|template| template.render(variables))
            .map_err(|error| Error::Data {
                place: self.place.clone(),
                detail: match (error.kind(), error.detail()) {
                    (ErrorKind::InvalidOperation, Some(detail)) => {
                        format!("the chat template refuses the messages: {detail}")
                    }
                    _ => format!("the chat template fails on the messages: {error}"),
                },
            })
    }
}

fn environment(source: &str) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_template_owned(NAME, without_generation_tags(source))?;
    Ok(environment)
}

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        message.to_owned(),
    ))
}

/// Local time, as Python's `datetime.now().strftime`.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    let mut text = String::new();
    match write!(text, "{}", chrono::Local::now().format(format)) {
        Ok(()) => Ok(text),
        Err(_) => Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now does not know the format `{format}`"),
        )),
    }
}

fn tojson(value: &Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ensure_ascii == Some(true) {
        return Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "tojson with ensure_ascii is not supported",
        ));
    }
    to_json(value, indent).map_err(|error| {
        minijinja::Error::new(ErrorKind::BadSerialization, "tojson").with_source(error)
    })
}

/// `transformers` marks what the assistant says with `{% generation %}`, which writes nothing: it
/// becomes a condition that always holds.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let end = rest[start..]
            .find("%}")
            .map_or(rest.len(), |end| start + end);
        let (before, tag) = (&rest[..start], &rest[start..end]);
        let name = tag[2..].trim_matches(|c: char| "+-".contains(c) || c.is_whitespace());
        text += before;
        text += &match name {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        rest = &rest[end..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let tokens = BTreeMap::from([("eos_token".into(), "</s>".into())]);
        let messages = [
            Message::new("user", "Hi"),
            Message::new("assistant", "\u{e9}<"),
        ];
        JinjaTemplate::new(source, tokens, "f".into())?.render(&messages, false)
    }

    #[test]
    fn the_environment_is_that_of_transformers() {
        for (source, expected) in [
            ("{{ eos_token }}{{ pad_token }}", "</s>"),
            ("{% if tools is not none %}x{% endif %}", ""),
            ("  {% if true %}\nx\n  {% endif %}\ny", "x\ny"),
            (
                "{{ messages[1:] | tojson }}",
                "[{\"role\": \"assistant\", \"content\": \"\u{e9}<\"}]",
            ),
            (
                "{{ messages[0] | tojson(indent=2) }}",
                "{\n  \"role\": \"user\",\n  \"content\": \"Hi\"\n}",
            ),
            (
                "{% for m in messages %}{% if not loop.first %}{% break %}{% endif %}\
                 {{ m.role.upper() }}{% endfor %}",
                "USER",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}\
                 {% endfor %}{{ ns.n }}",
                "2",
            ),
            ("a {%- generation %} b {%- endgeneration -%} c", "a bc"),
        ] {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
        let year: u32 = render("{{ strftime_now('%Y') }}").unwrap().parse().unwrap();
        assert!(year > 2024);
        assert!(render("{{ strftime_now('%Q') }}").is_err());
    }

    #[test]
    fn refusals_and_mistakes_are_told_apart() {
        let error = render("{{ raise_exception('no system') }}").unwrap_err();
        assert!(matches!(error, Error::Data { .. }));
        let message = error.to_string();
        assert!(
            message.contains("refuses the messages: no system"),
            "{message}"
        );
        let error = render("{% if %}").unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
        assert!(error.to_string().starts_with("f: "), "{error}");
    }
}
