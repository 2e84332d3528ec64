//! Chat messages and how they become text.

use std::fmt::Debug;

use crate::{Error, Result};

/// What precedes an assistant's turn; an HH-RLHF text (Bai et al. 2022, arXiv 2204.05862) is a
/// dialogue in this form whose last assistant turn is the answer.
pub(super) const ASSISTANT: &str = "\n\nAssistant:";

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else a template knows, such as `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: &str, content: &str) -> Self {
        Self {
            role: role.to_owned(),
            content: content.to_owned(),
        }
    }
}

/// Writes chat messages as the text that a model was or will be trained on.
///
/// The library brings [`Turns`] only; a program wraps a model's own template.
pub trait ChatTemplate: Debug {
    /// The text of a conversation; with `add_generation_prompt` it ends where the assistant's next
    /// answer begins.
    ///
    /// # Errors
    ///
    /// Messages that the template refuses, such as a role that it does not know.
    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String>;

    /// Whether the template writes the special tokens that its texts need, so that
    /// [`tokenise`](super::tokenise()) adds none at their beginning and end.
    fn writes_special_tokens(&self) -> bool {
        true
    }
}

/// The turns of HH-RLHF (Bai et al. 2022, arXiv 2204.05862) as a template, for models without one:
/// `"\n\nHuman: ..."` (role `user`), `"\n\nAssistant: ..."` (`assistant`) and `"\n\nSystem: ..."`
/// (`system`); an answer begins behind `"\n\nAssistant:"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns;

impl ChatTemplate for Turns {
    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut text = String::new();
        for message in messages {
            text += match message.role.as_str() {
                "system" => "\n\nSystem:",
                "user" => "\n\nHuman:",
                "assistant" => ASSISTANT,
                other => {
                    return Err(Error::Data {
                        place: "built-in turns".into(),
                        detail: format!(
                            "no form for a message of role `{other}`: system, user and assistant \
                             have one; use a model with a chat template that knows it"
                        ),
                    });
                }
            };
            text.push(' ');
            text += &message.content;
        }
        if add_generation_prompt {
            text += ASSISTANT;
        }
        Ok(text)
    }

    fn writes_special_tokens(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_turns() {
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", "Hi"),
        ];
        let text = "\n\nSystem: Be brief.\n\nHuman: Hi";
        assert_eq!(Turns.render(&messages, false).unwrap(), text);
        let opened = Turns.render(&messages, true).unwrap();
        assert_eq!(opened, format!("{text}\n\nAssistant:"));
        let error = Turns
            .render(&[Message::new("tool", "7")], false)
            .unwrap_err();
        assert!(error.to_string().contains("role `tool`"), "{error}");
    }
}
