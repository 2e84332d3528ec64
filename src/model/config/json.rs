//! Fields of a `config.json`, with messages that name them.

use serde_json::Value;

type Read<T> = Result<T, String>;

/// A field's value; `null` counts as absent.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|value| !value.is_null())
}

/// A size, 0 or more.
pub(super) fn size(value: &Value, name: &str) -> Read<Option<usize>> {
    let Some(found) = field(value, name) else {
        return Ok(None);
    };
    found
        .as_u64()
        .and_then(|size| usize::try_from(size).ok())
        .map(Some)
        .ok_or_else(|| format!("{name} is {found}, not a size"))
}

/// A size that must be there.
pub(super) fn required_size(value: &Value, name: &str) -> Read<usize> {
    size(value, name)?.ok_or_else(|| format!("{name} is missing"))
}

pub(super) fn number(value: &Value, name: &str, default: f64) -> Read<f64> {
    match field(value, name) {
        None => Ok(default),
        Some(found) => found
            .as_f64()
            .ok_or_else(|| format!("{name} is {found}, not a number")),
    }
}

pub(super) fn flag(value: &Value, name: &str, default: bool) -> Read<bool> {
    match field(value, name) {
        None => Ok(default),
        Some(found) => found
            .as_bool()
            .ok_or_else(|| format!("{name} is {found}, neither true nor false")),
    }
}

/// Token ids: none, one, or a list, as `eos_token_id` may be. A negative id means none.
pub(super) fn token_ids(value: &Value, name: &str) -> Read<Vec<u32>> {
    let one = |found: &Value| match found.as_i64() {
        Some(negative) if negative < 0 => Ok(None),
        Some(id) => u32::try_from(id)
            .map(Some)
            .map_err(|_| format!("{name} {id} is no token id")),
        None => Err(format!("{name} is {found}, not a token id")),
    };
    let ids: Vec<Option<u32>> = match field(value, name) {
        None => vec![],
        Some(Value::Array(list)) => list.iter().map(one).collect::<Read<_>>()?,
        Some(found) => vec![one(found)?],
    };
    Ok(ids.into_iter().flatten().collect())
}

/// The first of the token ids.
pub(super) fn token_id(value: &Value, name: &str) -> Read<Option<u32>> {
    Ok(token_ids(value, name)?.first().copied())
}

/// Refuses fields whose value would change the numbers; absent and `null` are taken as `expected`.
pub(super) fn only(value: &Value, fields: &[(&str, &str)]) -> Read<()> {
    for (name, expected) in fields {
        match field(value, name).map(Value::to_string) {
            Some(found) if found != *expected => {
                return Err(format!("{name} is {found}; only {expected} is implemented"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses fields that change the numbers whatever they hold.
pub(super) fn without(value: &Value, fields: &[&str]) -> Read<()> {
    for name in fields {
        match field(value, name) {
            None | Some(Value::Bool(false)) => {}
            Some(found) => return Err(format!("{name} is {found}, which is not implemented")),
        }
    }
    Ok(())
}
