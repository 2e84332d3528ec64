//! Dialogues as plain text: how chat messages are written, and where a dialogue's prompt ends.

/// What precedes an assistant's turn; an HH-RLHF text (Bai et al. 2022, arXiv 2204.05862) is a
/// dialogue in this form whose last assistant turn is the answer.
const ASSISTANT: &str = "\n\nAssistant:";

/// Who speaks in a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" | "human" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            _ => None,
        }
    }

    fn marker(self) -> &'static str {
        match self {
            Self::System => "\n\nSystem:",
            Self::User => "\n\nHuman:",
            Self::Assistant => ASSISTANT,
        }
    }
}

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub role: Role,
    pub content: String,
}

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

    fn is_chat(&self) -> bool {
        matches!(self, Self::Chat(_))
    }

    /// The passage as turns of a dialogue; text is a turn of `role`.
    fn into_turns(self, role: Role) -> String {
        let turn = |role: Role, content: &str| format!("{} {content}", role.marker());
        match self {
            Self::Text(text) => turn(role, &text),
            Self::Chat(messages) => messages
                .iter()
                .map(|message| turn(message.role, &message.content))
                .collect(),
        }
    }
}

/// The texts of a prompt and its responses.
///
/// As soon as one of them is a list of messages all are written as turns: a text prompt as the
/// user's, a text response as the assistant's. Responses that repeat the prompt's turns at their
/// beginning lose them, so that the prompt stands once.
pub(super) fn render(prompt: Option<Passage>, responses: Vec<Passage>) -> (String, Vec<String>) {
    let chat = prompt.iter().chain(&responses).any(Passage::is_chat);
    let write = |passage: Passage, role: Role| match passage {
        Passage::Text(text) if !chat => text,
        passage => passage.into_turns(role),
    };
    let prompt = match prompt {
        Some(Passage::Text(text)) if text.is_empty() => text,
        Some(prompt) => write(prompt, Role::User),
        None => String::new(),
    };
    let responses: Vec<String> = responses
        .into_iter()
        .map(|response| write(response, Role::Assistant))
        .collect();
    if chat {
        let repeated: Option<Vec<String>> = responses
            .iter()
            .map(|response| response.strip_prefix(&prompt).map(str::to_owned))
            .collect();
        if let Some(rest) = repeated {
            return (prompt, rest);
        }
    }
    (prompt, responses)
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

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn say(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.into(),
        }
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
    fn messages_are_written_as_turns() {
        let prompt = Passage::Chat(vec![say(Role::System, "Be brief."), say(Role::User, "Hi")]);
        let answers = vec![
            Passage::Chat(vec![say(Role::Assistant, "Hello")]),
            Passage::Text("Hey".into()),
        ];
        let (prompt, answers) = render(Some(prompt), answers);
        assert_eq!(prompt, "\n\nSystem: Be brief.\n\nHuman: Hi");
        assert_eq!(answers, ["\n\nAssistant: Hello", "\n\nAssistant: Hey"]);
    }

    #[test]
    fn a_prompt_repeated_by_all_messages_stands_once() {
        let answer =
            |text: &str| Passage::Chat(vec![say(Role::User, "Hi"), say(Role::Assistant, text)]);
        let (prompt, answers) = render(
            Some(Passage::Text("Hi".into())),
            vec![answer("a"), answer("b")],
        );
        assert_eq!(prompt, "\n\nHuman: Hi");
        assert_eq!(answers, ["\n\nAssistant: a", "\n\nAssistant: b"]);
    }

    #[test]
    fn plain_text_is_left_alone() {
        let (prompt, answers) = render(
            Some(Passage::Text("a".into())),
            vec![Passage::Text("ab".into()), Passage::Text("ac".into())],
        );
        assert_eq!((prompt.as_str(), answers), ("a", texts(&["ab", "ac"])));
    }
}
