//! What a line says about its responses: ranks, scores, weight and margin.

use serde_json::{Map, Value};

use super::line::{Reason, field, kind};
use super::records::{Preference, RecordForm};

fn number(fields: &Map<String, Value>, name: &str, default: f32) -> Result<f32, Reason> {
    let Some(value) = field(fields, name) else {
        return Ok(default);
    };
    let number = value
        .as_f64()
        .ok_or_else(|| format!("`{name}` is {}, not a number", kind(value)))?;
    let number = number as f32;
    if number.is_finite() {
        Ok(number)
    } else {
        Err(format!("`{name}` is not finite in 32 bits"))
    }
}

/// The strict preferences between different texts, which share the record's weight.
pub(super) fn preferences(
    fields: &Map<String, Value>,
    form: RecordForm,
    responses: &[String],
) -> Result<Vec<Preference>, Reason> {
    let weight = number(fields, "weight", 1.0)?;
    let margin = number(fields, "margin", 0.0)?;
    if weight < 0.0 {
        return Err(format!("`weight` is {weight}, below 0"));
    }
    let mut orders = match form {
        RecordForm::Pair => vec![(0, 1)],
        RecordForm::Ranking => strict_orders(&ranks(fields, responses.len())?),
        RecordForm::Prompt => return Ok(Vec::new()),
    };
    if orders.is_empty() {
        return Err("all responses are tied: there is nothing to learn".into());
    }
    orders.retain(|&(chosen, rejected)| responses[chosen] != responses[rejected]);
    if orders.is_empty() {
        return Err(match form {
            RecordForm::Pair => "`chosen` and `rejected` are equal".into(),
            RecordForm::Ranking | RecordForm::Prompt => {
                "the responses with different ranks are equal".into()
            }
        });
    }
    let weight = weight / orders.len() as f32;
    Ok(orders
        .into_iter()
        .map(|(chosen, rejected)| Preference {
            chosen,
            rejected,
            weight,
            margin,
        })
        .collect())
}

/// One number a response, lower is better.
fn ranks(fields: &Map<String, Value>, responses: usize) -> Result<Vec<f64>, Reason> {
    let (name, value, sign) = match (field(fields, "ranks"), field(fields, "scores")) {
        (Some(value), None) => ("ranks", value, 1.0),
        (None, Some(value)) => ("scores", value, -1.0),
        (Some(_), Some(_)) => return Err("both `ranks` and `scores`: which counts?".into()),
        (None, None) => return Err("`ranks` or `scores` is missing".into()),
    };
    let Value::Array(values) = value else {
        return Err(format!("`{name}` is {}, not a list", kind(value)));
    };
    if values.len() != responses {
        return Err(format!(
            "`{name}` has {} entries for {responses} responses",
            values.len()
        ));
    }
    values
        .iter()
        .map(|value| {
            value
                .as_f64()
                .map(|number| sign * number)
                .ok_or_else(|| format!("`{name}` holds {}, not a number", kind(value)))
        })
        .collect()
}

/// All (better, worse) pairs of a ranking, by the better one's index, then the worse one's.
fn strict_orders(ranks: &[f64]) -> Vec<(usize, usize)> {
    let mut orders = Vec::new();
    for (chosen, best) in ranks.iter().enumerate() {
        for (rejected, worse) in ranks.iter().enumerate() {
            if best < worse {
                orders.push((chosen, rejected));
            }
        }
    }
    orders
}
