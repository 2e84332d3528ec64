//! Which responses of a record go into a batch, and how often.

use super::batch::NONE;
use super::tokenise::TokenRecord;
use crate::{Error, Result};

/// How a record's responses become entries of the batch's list of answers.
pub(super) struct Entries {
    /// The response of each entry, in order.
    pub answers: Vec<usize>,
    /// The responses that have an entry, ascending.
    pub responses: Vec<usize>,
    /// The first entry of each response, counted from the record's first.
    pub first: Vec<u32>,
}

impl Entries {
    pub fn of(record: &TokenRecord, with_pairs: bool) -> Result<Self> {
        let count = record.answers.len();
        let broken = |detail: &str| {
            Err(Error::Data {
                place: format!("record of line {}", record.line),
                detail: detail.to_owned(),
            })
        };
        if count == 0 || record.answers.iter().any(Vec::is_empty) {
            return broken("each record needs an answer and each answer a token");
        }
        let answers: Vec<usize> = if with_pairs {
            let preferences = record.preferences.iter();
            preferences.flat_map(|p| [p.chosen, p.rejected]).collect()
        } else {
            (0..count).collect()
        };
        if answers.is_empty() {
            return broken("there is no preference to make a pair of");
        }
        if answers.iter().any(|&index| index >= count) {
            return broken("a preference names an answer that the record does not have");
        }
        let mut first = vec![NONE; count];
        for (entry, &index) in (0..).zip(&answers) {
            first[index] = entry.min(first[index]);
        }
        let responses = (0..count).filter(|&index| first[index] != NONE).collect();
        Ok(Self {
            answers,
            responses,
            first,
        })
    }

    /// The number of tokens of each response that has an entry.
    pub fn lengths<'a>(&'a self, record: &'a TokenRecord) -> impl Iterator<Item = usize> + 'a {
        self.responses
            .iter()
            .map(|&index| record.answers[index].len())
    }
}
