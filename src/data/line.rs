//! One line of a preference file: from JSON to a record, or the reason why it is none.

use serde_json::{Map, Value};

use super::chat::{ChatTemplate, Message, Turns};
use super::comparisons::preferences;
use super::dialogue::{Conversation, Passage, dialogue_prompt, prompt_text};
use super::records::{ReadOptions, Record, RecordForm};

/// Why a line cannot be used, for a person to read.
pub(super) type Reason = String;

/// Reads one line; see [`read_records`](super::read_records) for the forms.
pub(super) fn parse_line(
    text: &str,
    line: usize,
    options: &ReadOptions<'_>,
) -> Result<Record, Reason> {
    let fields = match serde_json::from_str(text).map_err(json_reason)? {
        Value::Object(fields) => fields,
        other => return Err(format!("{}, not a JSON object", kind(&other))),
    };
    let form = form_of(&fields, options)?;
    let prompt = match field(&fields, "prompt") {
        Some(value) => Some(passage("prompt", value)?),
        None => None,
    };
    let answers = match form {
        RecordForm::Pair => vec![
            required_passage(&fields, "chosen")?,
            required_passage(&fields, "rejected")?,
        ],
        RecordForm::Ranking => response_list(&fields)?,
        RecordForm::Prompt => Vec::new(),
    };
    let texts = texts(prompt, answers, form, options.template.unwrap_or(&Turns))?;
    let preferences = match preferences(&fields, form, &texts.responses) {
        Err(_) if options.for_scoring => Vec::new(),
        read => read?,
    };
    Ok(Record {
        line,
        form,
        prompt: texts.prompt,
        responses: texts.responses,
        templated: texts.templated,
        preferences,
    })
}

/// serde_json counts lines within the one line it sees; only its column means something here.
fn json_reason(error: serde_json::Error) -> Reason {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    format!("not JSON: {what} at column {}", error.column())
}

/// A field's value; `null` counts as absent.
pub(super) fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn form_of(fields: &Map<String, Value>, options: &ReadOptions<'_>) -> Result<RecordForm, Reason> {
    let has = |name| field(fields, name).is_some();
    match (has("responses"), has("chosen") || has("rejected")) {
        (false, true) => Ok(RecordForm::Pair),
        (true, false) => Ok(RecordForm::Ranking),
        (true, true) => Err("both `responses` and `chosen` or `rejected`".into()),
        (false, false) if options.prompts_alone && has("prompt") => Ok(RecordForm::Prompt),
        (false, false) => Err("neither `chosen` and `rejected` nor `responses`".into()),
    }
}

fn required_passage(fields: &Map<String, Value>, name: &str) -> Result<Passage, Reason> {
    let value = field(fields, name).ok_or_else(|| format!("`{name}` is missing"))?;
    passage(name, value)
}

fn response_list(fields: &Map<String, Value>) -> Result<Vec<Passage>, Reason> {
    let value = field(fields, "responses").ok_or("`responses` is missing")?;
    let Value::Array(values) = value else {
        return Err(format!("`responses` is {}, not a list", kind(value)));
    };
    if values.is_empty() {
        return Err("`responses` is empty".into());
    }
    values
        .iter()
        .enumerate()
        .map(|(index, value)| passage(&format!("responses[{index}]"), value))
        .collect()
}

fn passage(name: &str, value: &Value) -> Result<Passage, Reason> {
    match value {
        Value::String(text) => Ok(Passage::Text(text.clone())),
        Value::Array(messages) => messages
            .iter()
            .map(|value| message(name, value))
            .collect::<Result<_, _>>()
            .map(Passage::Chat),
        other => Err(format!(
            "`{name}` is {}, not text or a list of messages",
            kind(other)
        )),
    }
}

fn message(name: &str, value: &Value) -> Result<Message, Reason> {
    let text = |key: &str| {
        value.get(key).and_then(Value::as_str).ok_or_else(|| {
            format!("`{name}` holds a message without a text `{key}`: {{\"role\", \"content\"}} is needed")
        })
    };
    let calls = value.get("tool_calls").unwrap_or(&Value::Null);
    if !calls.is_null() && calls.as_array().is_none_or(|calls| !calls.is_empty()) {
        return Err(format!(
            "`{name}` holds a message with `tool_calls`: only what is in `content` can be used"
        ));
    }
    let role = match text("role")? {
        "human" => "user",
        role => role,
    };
    Ok(Message::new(role, text("content")?))
}

/// The texts to tokenise.
struct Texts {
    prompt: String,
    responses: Vec<String>,
    /// Whether the template wrote their special tokens.
    templated: bool,
}

/// The texts to tokenise, once none of the answers is empty.
fn texts(
    prompt: Option<Passage>,
    answers: Vec<Passage>,
    form: RecordForm,
    template: &dyn ChatTemplate,
) -> Result<Texts, Reason> {
    let name = |index: usize| match (form, index) {
        (RecordForm::Pair, 0) => "`chosen`".to_owned(),
        (RecordForm::Pair, _) => "`rejected`".to_owned(),
        (RecordForm::Ranking | RecordForm::Prompt, index) => format!("`responses[{index}]`"),
    };
    if let Some(index) = answers.iter().position(Passage::is_empty) {
        return Err(format!("{} is empty", name(index)));
    }
    let plain = (
        prompt.as_ref().map_or(Some(String::new()), Passage::text),
        answers.iter().map(Passage::text).collect(),
    );
    let texts = match plain {
        (Some(prompt), Some(responses)) => Texts {
            prompt,
            responses,
            templated: false,
        },
        _ => conversation(prompt, answers, &name, template)?,
    };
    // A dialogue without a prompt field has its answer behind the last shared assistant turn.
    let start = match dialogue_prompt(&texts.responses) {
        Some(shared) if texts.prompt.is_empty() => shared.len(),
        _ => 0,
    };
    match texts.responses.iter().position(|text| text.len() == start) {
        Some(index) => Err(format!("{} has an empty answer", name(index))),
        None => Ok(texts),
    }
}

/// As soon as one passage is a list of messages, the template writes all of them.
fn conversation(
    prompt: Option<Passage>,
    answers: Vec<Passage>,
    name: &dyn Fn(usize) -> String,
    template: &dyn ChatTemplate,
) -> Result<Texts, Reason> {
    let conversation = Conversation::of(prompt, answers);
    for (index, answer) in conversation.answers.iter().enumerate() {
        if answer.last().is_none_or(|last| last.role != "assistant") {
            return Err(format!(
                "{} does not end with a message of role `assistant`",
                name(index)
            ));
        }
    }
    let (prompt, responses) = match conversation.answers.is_empty() {
        true => (prompt_text(&conversation.prompt, template)?, Vec::new()),
        false => conversation.render(template)?,
    };
    Ok(Texts {
        prompt,
        responses,
        templated: template.writes_special_tokens(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preference;

    fn reason(text: &str) -> String {
        parse_line(text, 1, &ReadOptions::default()).unwrap_err()
    }

    fn read(text: &str) -> Record {
        parse_line(text, 1, &ReadOptions::default()).unwrap()
    }

    #[test]
    fn every_unusable_line_says_why() {
        for (text, expected) in [
            (r#"{"chosen": "a""#, "not JSON: EOF"),
            ("[1]", "a list, not a JSON object"),
            (r#"{"prompt": "p"}"#, "neither `chosen`"),
            (r#"{"prompt": "p", "chosen": "a"}"#, "`rejected` is missing"),
            (
                r#"{"chosen": null, "rejected": "b"}"#,
                "`chosen` is missing",
            ),
            (r#"{"chosen": 3, "rejected": "b"}"#, "`chosen` is a number"),
            (
                r#"{"prompt": {}, "chosen": "a", "rejected": "b"}"#,
                "`prompt` is an object",
            ),
            (r#"{"chosen": "", "rejected": "b"}"#, "`chosen` is empty"),
            (r#"{"chosen": "b", "rejected": "b"}"#, "are equal"),
            (
                r#"{"chosen": "a", "rejected": "b", "weight": 1e39}"#,
                "`weight` is not finite",
            ),
            (
                r#"{"chosen": "a", "rejected": "b", "margin": -1e39}"#,
                "`margin` is not finite",
            ),
            (
                r#"{"chosen": "a", "rejected": "b", "margin": "x"}"#,
                "`margin` is text",
            ),
            (
                r#"{"chosen": "a", "rejected": "b", "weight": -1}"#,
                "below 0",
            ),
            (
                r#"{"responses": ["a", "b"], "chosen": "a"}"#,
                "both `responses`",
            ),
            (r#"{"responses": []}"#, "`responses` is empty"),
            (
                r#"{"responses": "ab", "ranks": [1]}"#,
                "`responses` is text",
            ),
            (
                r#"{"responses": ["a", 1], "ranks": [1, 2]}"#,
                "`responses[1]` is a number",
            ),
            (
                r#"{"responses": ["a", ""], "ranks": [1, 2]}"#,
                "`responses[1]` is empty",
            ),
            (
                r#"{"responses": ["a", "b"]}"#,
                "`ranks` or `scores` is missing",
            ),
            (
                r#"{"responses": ["a", "b"], "ranks": [1]}"#,
                "1 entries for 2 responses",
            ),
            (
                r#"{"responses": ["a", "b"], "ranks": [1, null]}"#,
                "holds null",
            ),
            (
                r#"{"responses": ["a", "b"], "ranks": 1}"#,
                "`ranks` is a number",
            ),
            (
                r#"{"responses": ["a", "b"], "ranks": [1, 1]}"#,
                "all responses are tied",
            ),
            (
                r#"{"responses": ["a", "a"], "ranks": [1, 2]}"#,
                "different ranks are equal",
            ),
            (
                r#"{"responses": ["a", "b"], "ranks": [1, 2], "scores": [1, 2]}"#,
                "which counts",
            ),
            (
                r#"{"chosen": [{"role": "user"}], "rejected": "b"}"#,
                "without a text `content`",
            ),
            (
                r#"{"chosen": [{"role": "tool", "content": "x"}], "rejected": "b"}"#,
                "`chosen` does not end with a message of role `assistant`",
            ),
            (
                r#"{"prompt": [{"role": "tool", "content": "x"}], "chosen": "a", "rejected": "b"}"#,
                "role `tool`",
            ),
            (
                r#"{"prompt": [{"role": "system", "content": "x"}], "chosen": "a", "rejected": "b"}"#,
                "the prompt's last message is of role `system`",
            ),
            (
                r#"{"chosen": [{"role": "assistant", "content": "a", "tool_calls": [{}]}], "rejected": "b"}"#,
                "`tool_calls`",
            ),
            (
                r#"{"chosen": [{"role": "assistant", "content": ""}], "rejected": "b"}"#,
                "`chosen` is empty",
            ),
            (r#"{"chosen": [], "rejected": "b"}"#, "`chosen` is empty"),
            (
                r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant:"}"#,
                "`rejected` has an empty answer",
            ),
            (
                r#"{"prompt": "p", "chosen": [{"role": "user", "content": "p"}],
                    "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]}"#,
                "`chosen` does not end with",
            ),
        ] {
            let found = reason(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert_eq!(
            reason("{"),
            "not JSON: EOF while parsing an object at column 1"
        );
    }

    #[test]
    fn pairs_carry_weight_and_margin() {
        let record =
            read(r#"{"prompt": "p", "chosen": "a", "rejected": "b", "weight": 0.5, "margin": 2}"#);
        assert_eq!(record.form, RecordForm::Pair);
        assert_eq!(
            (record.prompt.as_str(), record.responses),
            ("p", vec!["a".into(), "b".into()])
        );
        let expected = Preference {
            chosen: 0,
            rejected: 1,
            weight: 0.5,
            margin: 2.0,
        };
        assert_eq!(record.preferences, [expected]);
    }

    #[test]
    fn two_fields_leave_the_prompt_in_the_texts() {
        let record = read(
            r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: "}"#,
        );
        assert_eq!(record.prompt, "");
        assert_eq!(record.responses[1], "\n\nHuman: a\n\nAssistant: ");
    }

    #[test]
    fn a_ranking_becomes_its_strict_orders_and_counts_once() {
        let record = read(
            r#"{"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2], "weight": 3}"#,
        );
        let orders: Vec<_> = record
            .preferences
            .iter()
            .map(|p| (p.chosen, p.rejected, p.weight))
            .collect();
        assert_eq!(orders, [(1, 0, 1.5), (1, 2, 1.5)]);
        let scores = read(
            r#"{"prompt": "p", "responses": ["a", "b", "c"], "scores": [-2, -1, -2], "weight": 3}"#,
        );
        assert_eq!(scores.preferences, record.preferences);
        // Equal texts are no comparison, whatever their ranks.
        let record = read(r#"{"responses": ["a", "a", "c"], "ranks": [1, 2, 3]}"#);
        let orders: Vec<_> = record
            .preferences
            .iter()
            .map(|p| (p.chosen, p.rejected, p.weight))
            .collect();
        assert_eq!(orders, [(0, 2, 0.5), (1, 2, 0.5)]);
    }

    #[test]
    fn scoring_needs_texts_only() {
        let options = ReadOptions {
            for_scoring: true,
            ..ReadOptions::default()
        };
        for (text, responses, preferences) in [
            (r#"{"chosen": "a", "rejected": "a"}"#, 2, 0),
            (r#"{"chosen": "a", "rejected": "b", "weight": -1}"#, 2, 0),
            (r#"{"chosen": "a", "rejected": "b"}"#, 2, 1),
            (r#"{"prompt": "p", "responses": ["a"]}"#, 1, 0),
            (
                r#"{"prompt": "p", "responses": ["a", "b"], "ranks": [1, 1]}"#,
                2,
                0,
            ),
            (
                r#"{"prompt": "p", "responses": ["a", "b"], "ranks": [2, 1]}"#,
                2,
                1,
            ),
        ] {
            let record = parse_line(text, 4, &options).unwrap();
            assert_eq!(record.line, 4);
            assert_eq!(
                (record.responses.len(), record.preferences.len()),
                (responses, preferences),
                "{text}"
            );
        }
        assert!(parse_line(r#"{"chosen": "", "rejected": "a"}"#, 4, &options).is_err());
    }

    #[test]
    fn prompts_alone_are_taken_where_they_are_asked_for() {
        let options = ReadOptions {
            prompts_alone: true,
            ..ReadOptions::default()
        };
        let text = parse_line(r#"{"prompt": "p"}"#, 1, &options).unwrap();
        assert_eq!((text.form, text.prompt.as_str()), (RecordForm::Prompt, "p"));
        let chat = r#"{"prompt": [{"role": "human", "content": "Hi"}], "chosen": null}"#;
        let chat = parse_line(chat, 1, &options).unwrap();
        assert_eq!(chat.prompt, "\n\nHuman: Hi\n\nAssistant:");
        assert!(chat.responses.is_empty() && chat.preferences.is_empty());
    }
}
