//! From records with preferences to pairs, and what the reference says of them.

use crate::data::{Preference, TokenRecord};
use crate::{Error, Result};

/// Where a pair came from: a record and two of its responses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Source {
    record: usize,
    chosen: usize,
    rejected: usize,
}

/// Log-probability of each pair's chosen and rejected answer under the reference.
pub(super) type Reference = Vec<[f32; 2]>;

/// A record of two answers, chosen and rejected, for every preference.
///
/// Each pair has its answers' tokens to itself: the loss gives a token one gradient, that of one
/// pair.
pub(super) fn pairs_of(records: &[TokenRecord]) -> Result<(Vec<TokenRecord>, Vec<Source>)> {
    let (mut pairs, mut sources) = (Vec::new(), Vec::new());
    for (index, record) in records.iter().enumerate() {
        if record.prompt.is_empty() {
            return Err(Error::Data {
                place: format!("record of line {}", record.line),
                detail: "it has no prompt, so nothing predicts its answers' first tokens: \
                         tokenise with Boundary::Prompt, which leaves such records out"
                    .into(),
            });
        }
        for &Preference {
            chosen,
            rejected,
            weight,
            margin,
        } in &record.preferences
        {
            pairs.push(TokenRecord {
                line: record.line,
                prompt: record.prompt.clone(),
                answers: vec![
                    record.answers[chosen].clone(),
                    record.answers[rejected].clone(),
                ],
                preferences: vec![Preference {
                    chosen: 0,
                    rejected: 1,
                    weight,
                    margin,
                }],
            });
            sources.push(Source {
                record: index,
                chosen,
                rejected,
            });
        }
    }
    Ok((pairs, sources))
}

/// The log-probabilities of the pairs' answers, from those of every response of every record.
pub(super) fn pick(sources: &[Source], logprobs: &[Vec<f32>]) -> Result<Reference> {
    let of = |record: usize, response: usize| {
        let logprob = logprobs.get(record).and_then(|all| all.get(response));
        logprob
            .copied()
            .filter(|logprob| logprob.is_finite())
            .ok_or_else(|| {
                Error::shape(
                    "DPO",
                    format!(
                        "the reference log-probability of response {response} of record {record} \
                         (both from 0) is missing or not finite"
                    ),
                )
            })
    };
    let pairs = sources.iter();
    pairs
        .map(|pair| {
            Ok([
                of(pair.record, pair.chosen)?,
                of(pair.record, pair.rejected)?,
            ])
        })
        .collect()
}
