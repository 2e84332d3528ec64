//! Dialogues: which of their messages are the prompt, and where the prompt of a written one ends.

use super::chat::{ASSISTANT, ChatTemplate, Message};
use super::line::Reason;

/// Marks where a prompt's last message ends in its text; no template takes it for white space.
const END: &str = "END_OF_THE_LAST_MESSAGE";

/// A field of a record: text as it stands, or a list of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Passage {
    Text(String),
    Chat(Vec<Message>),
}

impl Passage {
    /// Whether nothing is there: no character, no message, or a last message without text.
    ///
    /// White space is something: HH-RLHF has answers of one blank, which people did compare.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Chat(messages) => messages
                .last()
                .is_none_or(|message| message.content.is_empty()),
        }
    }

    /// The text, of what is no list of messages.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Chat(_) => None,
        }
    }

    /// The passage as messages; text is one of `role`.
    fn into_messages(self, role: &str) -> Vec<Message> {
        match self {
            Self::Text(text) => vec![Message::new(role, &text)],
            Self::Chat(messages) => messages,
        }
    }
}

/// The messages of a prompt, and those of each response behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conversation {
    pub prompt: Vec<Message>,
    pub answers: Vec<Vec<Message>>,
}

impl Conversation {
    /// Takes the fields of a record apart, as TRL's `maybe_extract_prompt` does.
    ///
    /// A prompt of messages stands as it is, and where all responses repeat it, they lose it. A
    /// prompt that is text is the user's turn before responses that begin with the assistant's.
    /// Otherwise the responses are whole conversations, and the prompt is what they share, without
    /// the last message of any.
    pub(super) fn of(prompt: Option<Passage>, responses: Vec<Passage>) -> Self {
        let mut answers: Vec<Vec<Message>> = responses
            .into_iter()
            .map(|response| response.into_messages("assistant"))
            .collect();
        let all_answer = answers.iter().all(|answer| {
            answer
                .first()
                .is_some_and(|first| first.role == "assistant")
        });
        match prompt {
            Some(Passage::Chat(prompt)) if !prompt.is_empty() => {
                let repeats = |answer: &Vec<Message>| {
                    answer.len() > prompt.len() && answer.starts_with(&prompt)
                };
                if answers.iter().all(repeats) {
                    for answer in &mut answers {
                        answer.drain(..prompt.len());
                    }
                }
                Self { prompt, answers }
            }
            Some(Passage::Text(text)) if all_answer && !text.is_empty() => Self {
                prompt: vec![Message::new("user", &text)],
                answers,
            },
            _ => Self::of_whole(answers),
        }
    }

    fn of_whole(mut answers: Vec<Vec<Message>>) -> Self {
        let shortest = answers.iter().map(Vec::len).min().unwrap_or_default();
        let most = shortest.saturating_sub(1);
        let shared = (0..most)
            .find(|&at| answers.iter().any(|answer| answer[at] != answers[0][at]))
            .unwrap_or(most);
        // An answer follows no system message: what begins so has no prompt to be answered.
        let shared = (0..shared)
            .rfind(|&at| opening_of(&answers[0][at]).is_some())
            .map_or(0, |last| last + 1);
        let prompt = answers
            .first()
            .map_or_else(Vec::new, |first| first[..shared].to_vec());
        for answer in &mut answers {
            answer.drain(..shared);
        }
        Self { prompt, answers }
    }

    /// The text of the prompt and what follows it in that of each response, as TRL's
    /// `apply_chat_template` splits them: the prompt is the common beginning of its own text and
    /// those of all whole conversations.
    pub(super) fn render(
        &self,
        template: &dyn ChatTemplate,
    ) -> Result<(String, Vec<String>), Reason> {
        let mut texts = vec![prompt_text(&self.prompt, template)?];
        for answer in &self.answers {
            let whole = [&self.prompt[..], answer].concat();
            texts.push(template.render(&whole, false).map_err(reason)?);
        }
        let prompt = common_prefix(&texts).to_owned();
        let behind = |text: &String| text[prompt.len()..].to_owned();
        let answers = texts[1..].iter().map(behind).collect();
        Ok((prompt, answers))
    }
}

/// How an answer is opened behind a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// By the template's generation prompt.
    Turn,
    /// Where the message ends: the answer goes on with it.
    Continuation,
}

fn opening_of(last: &Message) -> Option<Opening> {
    match last.role.as_str() {
        "user" | "tool" => Some(Opening::Turn),
        "assistant" => Some(Opening::Continuation),
        _ => None,
    }
}

/// The text of a prompt up to where its answer begins; empty where there is no message.
pub(super) fn prompt_text(
    prompt: &[Message],
    template: &dyn ChatTemplate,
) -> Result<String, Reason> {
    let Some((last, before)) = prompt.split_last() else {
        return Ok(String::new());
    };
    match opening_of(last) {
        Some(Opening::Turn) => template.render(prompt, true).map_err(reason),
        Some(Opening::Continuation) => {
            // As transformers' `continue_final_message` finds the place.
            let marked = Message::new(&last.role, &format!("{}{END} ", last.content));
            let text = template
                .render(&[before, &[marked]].concat(), false)
                .map_err(reason)?;
            let end = text
                .rfind(END)
                .ok_or("the chat template leaves out the prompt's last message")?;
            let trims = !text[end + END.len()..].starts_with(' ');
            Ok(match trims {
                true => text[..end].trim_end(),
                false => &text[..end],
            }
            .to_owned())
        }
        None => Err(format!(
            "the prompt's last message is of role `{}`: an answer follows one of role user, tool \
             or assistant",
            last.role
        )),
    }
}

fn reason(error: crate::Error) -> Reason {
    error.to_string()
}

/// The part of the texts up to and including the last `"\n\nAssistant:"` that all of them share,
/// or `None` where they share none.
pub(super) fn dialogue_prompt(texts: &[String]) -> Option<&str> {
    let shared = common_prefix(texts);
    shared
        .rfind(ASSISTANT)
        .map(|start| &shared[..start + ASSISTANT.len()])
}

/// The longest common prefix of the texts, in whole characters; empty when there is no text.
pub(super) fn common_prefix(texts: &[String]) -> &str {
    let Some((first, others)) = texts.split_first() else {
        return "";
    };
    others.iter().fold(first.as_str(), |shared, other| {
        let end = shared
            .char_indices()
            .zip(other.chars())
            .find(|((_, a), b)| a != b)
            .map_or(shared.len().min(other.len()), |((at, _), _)| at);
        &shared[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Turns;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn chat(messages: &[(&str, &str)]) -> Passage {
        let messages = messages.iter();
        Passage::Chat(
            messages
                .map(|(role, text)| Message::new(role, text))
                .collect(),
        )
    }

    fn text(text: &str) -> Option<Passage> {
        Some(Passage::Text(text.into()))
    }

    fn render(prompt: Option<Passage>, responses: &[Passage]) -> (String, Vec<String>) {
        let conversation = Conversation::of(prompt, responses.to_vec());
        conversation.render(&Turns).unwrap()
    }

    #[test]
    fn common_prefix_keeps_characters_whole() {
        assert_eq!(common_prefix(&texts(&["ab", "abc"])), "ab");
        assert_eq!(common_prefix(&texts(&["abc", "ab"])), "ab");
        assert_eq!(common_prefix(&texts(&["abc", "abd", "ax"])), "a");
        // The first bytes of é and è are equal.
        assert_eq!(common_prefix(&texts(&["xé", "xè"])), "x");
        assert_eq!(common_prefix(&texts(&["x", ""])), "");
        assert_eq!(common_prefix(&texts(&["only"])), "only");
        assert_eq!(common_prefix(&[]), "");
    }

    #[test]
    fn the_prompt_ends_at_the_last_shared_assistant_turn() {
        let shared = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
        let pair = [format!("{shared} I am"), format!("{shared} I was")];
        assert_eq!(dialogue_prompt(&pair), Some(shared));
        // The second assistant turn stands in one of the texts only.
        let pair = texts(&["h\n\nAssistant: b\n\nAssistant: c", "h\n\nAssistant: b"]);
        assert_eq!(dialogue_prompt(&pair), Some("h\n\nAssistant:"));
        assert_eq!(dialogue_prompt(&texts(&["plain", "plane"])), None);
    }

    #[test]
    fn a_prompt_of_messages_opens_the_answers() {
        let prompt = chat(&[("system", "Be brief."), ("user", "Hi")]);
        let answers = [chat(&[("assistant", "Hello")]), Passage::Text("Hey".into())];
        let (prompt, answers) = render(Some(prompt), &answers);
        assert_eq!(prompt, "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant:");
        assert_eq!(answers, [" Hello", " Hey"]);
    }

    #[test]
    fn whole_conversations_share_their_prompt() {
        let whole = |end: &[(&str, &str)]| {
            chat(
                &[
                    &[("user", "Hi"), ("assistant", "Yes?"), ("user", "Well")],
                    end,
                ]
                .concat(),
            )
        };
        let pair = [
            whole(&[("assistant", "a")]),
            whole(&[("assistant", "b"), ("user", "c"), ("assistant", "d")]),
        ];
        let shared = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Well\n\nAssistant:";
        // A prompt column beside whole conversations says nothing new.
        for prompt in [None, text("Hi"), text("")] {
            let (prompt, answers) = render(prompt, &pair);
            assert_eq!(prompt, shared);
            assert_eq!(answers, [" a", " b\n\nHuman: c\n\nAssistant: d"]);
        }
        // Equal conversations keep their last message as the answer.
        let (prompt, answers) = render(None, &[pair[0].clone(), pair[0].clone()]);
        assert_eq!((prompt.as_str(), answers), (shared, texts(&[" a", " a"])));
        // The assistant's own last turn is gone on with.
        let (prompt, answers) = render(
            None,
            &[
                whole(&[("assistant", "a "), ("assistant", "b")]),
                whole(&[("assistant", "a "), ("assistant", "c")]),
            ],
        );
        assert_eq!(prompt, format!("{shared} a "));
        assert_eq!(answers, ["\n\nAssistant: b", "\n\nAssistant: c"]);
    }

    #[test]
    fn what_shares_no_question_has_no_prompt() {
        let whole =
            |question: &str| chat(&[("system", "s"), ("user", question), ("assistant", "a")]);
        let (prompt, answers) = render(None, &[whole("b"), whole("c")]);
        assert_eq!(prompt, "");
        assert_eq!(answers[1], "\n\nSystem: s\n\nHuman: c\n\nAssistant: a");
        let system = [Message::new("system", "s")];
        let reason = prompt_text(&system, &Turns).unwrap_err();
        assert!(reason.contains("role `system`"), "{reason}");
    }

    #[test]
    fn a_prompt_repeated_by_all_messages_stands_once() {
        let answer = |text: &str| chat(&[("user", "Hi"), ("assistant", text)]);
        let answers = [answer("a"), answer("b")];
        for prompt in [chat(&[("user", "Hi")]), Passage::Text("Hi".into())] {
            let (prompt, answers) = render(Some(prompt), &answers);
            assert_eq!(prompt, "\n\nHuman: Hi\n\nAssistant:");
            assert_eq!(answers, [" a", " b"]);
        }
        let (prompt, answers) = render(text("Hi"), &[chat(&[("assistant", "a")])]);
        assert_eq!(
            (prompt.as_str(), answers),
            ("\n\nHuman: Hi\n\nAssistant:", texts(&[" a"]))
        );
    }

    /// Trims what is said, as many templates do.
    #[derive(Debug)]
    struct Trimming;

    impl ChatTemplate for Trimming {
        fn render(&self, messages: &[Message], open: bool) -> crate::Result<String> {
            let turn = |m: &Message| format!("<{}>{}</>", m.role, m.content.trim());
            let text: String = messages.iter().map(turn).collect();
            Ok(text + if open { "<assistant><think>" } else { "" })
        }
    }

    #[test]
    fn the_prompt_is_what_its_text_shares_with_the_whole() {
        let conversation = Conversation::of(
            Some(chat(&[("user", " q ")])),
            vec![chat(&[("assistant", " a")]), chat(&[("assistant", "b")])],
        );
        let (prompt, answers) = conversation.render(&Trimming).unwrap();
        assert_eq!(prompt, "<user>q</><assistant>");
        assert_eq!(answers, ["a</>", "b</>"]);
        let alone = prompt_text(&conversation.prompt, &Trimming).unwrap();
        assert_eq!(alone, "<user>q</><assistant><think>");
        let begun = [Message::new("assistant", "so far ")];
        assert_eq!(prompt_text(&begun, &Trimming).unwrap(), "<assistant>so far");
    }
}
