//! One line of a preference file: from JSON to a record, or the reason why it is none.

use serde_json::{Map, Value};

use super::comparisons::preferences;
use super::dialogue::{Message, Passage, Role, dialogue_prompt, render};
use super::records::{Record, RecordForm};

/// Why a line cannot be used, for a person to read.
pub(super) type Reason = String;

/// Reads one line; see [`read_records`](super::read_records) for the forms.
pub(super) fn parse_line(text: &str, line: usize, for_scoring: bool) -> Result<Record, Reason> {
    let fields = match serde_json::from_str(text).map_err(json_reason)? {
        Value::Object(fields) => fields,
        other => return Err(format!("{}, not a JSON object", kind(&other))),
    };
    let form = form_of(&fields)?;
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
    };
    let (prompt, responses) = texts(prompt, answers, form)?;
    let preferences = match preferences(&fields, form, &responses) {
        Err(_) if for_scoring => Vec::new(),
        read => read?,
    };
    Ok(Record {
        line,
        form,
        prompt,
        responses,
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

fn form_of(fields: &Map<String, Value>) -> Result<RecordForm, Reason> {
    let has = |name| field(fields, name).is_some();
    match (has("responses"), has("chosen") || has("rejected")) {
        (false, true) => Ok(RecordForm::Pair),
        (true, false) => Ok(RecordForm::Ranking),
        (true, true) => Err("both `responses` and `chosen` or `rejected`".into()),
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
    let role = text("role")?;
    Ok(Message {
        role: Role::from_name(role).ok_or_else(|| {
            format!(
                "`{name}` holds a message of role `{role}`; system, user and assistant are known"
            )
        })?,
        content: text("content")?.to_owned(),
    })
}

/// The texts to tokenise, once none of the answers is empty.
fn texts(
    prompt: Option<Passage>,
    answers: Vec<Passage>,
    form: RecordForm,
) -> Result<(String, Vec<String>), Reason> {
    let name = |index: usize| match (form, index) {
        (RecordForm::Pair, 0) => "`chosen`".to_owned(),
        (RecordForm::Pair, _) => "`rejected`".to_owned(),
        (RecordForm::Ranking, index) => format!("`responses[{index}]`"),
    };
    if let Some(index) = answers.iter().position(Passage::is_empty) {
        return Err(format!("{} is empty", name(index)));
    }
    let (prompt, responses) = render(prompt, answers);
    // A dialogue without a prompt field has its answer behind the last shared assistant turn.
    let start = match dialogue_prompt(&responses) {
        Some(shared) if prompt.is_empty() => shared.len(),
        _ => 0,
    };
    match responses.iter().position(|text| text.len() == start) {
        Some(index) => Err(format!("{} has an empty answer", name(index))),
        None => Ok((prompt, responses)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preference;

    fn reason(text: &str) -> String {
        parse_line(text, 1, false).unwrap_err()
    }

    fn read(text: &str) -> Record {
        parse_line(text, 1, false).unwrap()
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
                "role `tool`",
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
                "`chosen` has an empty answer",
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
            let record = parse_line(text, 4, true).unwrap();
            assert_eq!(record.line, 4);
            assert_eq!(
                (record.responses.len(), record.preferences.len()),
                (responses, preferences),
                "{text}"
            );
        }
        assert!(parse_line(r#"{"chosen": "", "rejected": "a"}"#, 1, true).is_err());
    }
}
