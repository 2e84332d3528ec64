//! From texts to token ids: one shared prompt and its answers.

use super::dialogue::dialogue_prompt;
use super::line_error;
use super::records::{Preference, Record, Skipped};
use super::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A record in tokens: the prompt that its responses share, and what each has of its own.
///
/// Where the shared prompt ends is said by [`Boundary`]; each answer keeps at least one token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRecord {
    /// The line of the file, from 1.
    pub line: usize,
    /// Token ids that all responses begin with; may be empty.
    pub prompt: Vec<u32>,
    /// Token ids of each response behind the prompt, in the record's order; none is empty.
    pub answers: Vec<Vec<u32>>,
    /// The comparisons, by index into `answers`.
    pub preferences: Vec<Preference>,
}

/// What [`tokenise`] made of its records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokenised {
    /// The records that can be used.
    pub records: Vec<TokenRecord>,
    /// Lines of the records that lost tokens from the left of their prompt.
    pub truncated: Vec<usize>,
    /// The records that cannot be used, and why.
    pub dropped: Vec<Skipped>,
}

/// Where a record's prompt ends and its answers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// As far as the responses' tokens are the same, into their answers if need be: what rewards
    /// need, and the least to compute.
    #[default]
    Longest,
    /// Where the prompt's text ends: what policies need, whose every answer token counts. The
    /// prompt is the common beginning of its own tokens and those of every response behind it, so
    /// a token that merges across the boundary belongs to the answers, of all responses. The text
    /// of a record without a prompt field reaches up to and includes the last `"\n\nAssistant:"`
    /// that all its responses share; where they share none, the prompt is empty.
    Prompt,
}

/// How to tokenise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokeniseOptions {
    /// The model's context: the most tokens of a prompt and one answer together.
    pub context: usize,
    /// The model's vocabulary size: every token id must be below it.
    pub vocab_size: usize,
    /// Keep records without a comparison, as scoring needs.
    pub for_scoring: bool,
    /// Where prompts end.
    pub boundary: Boundary,
}

/// Tokenises records of the file `place`.
///
/// Prompt and response are tokenised as one text, as `transformers` would be given it. As TRL's
/// trainers do, a text gets the token that the tokenizer puts before each text
/// ([`bos_token_id`](Tokenizer::bos_token_id)) and, unless it ends with it, the end-of-text token,
/// once; what a chat template wrote ([`Record::templated`]) gets neither, for it has them where
/// they belong. The record's [`Boundary`] splits off the shared prompt. Where the prompt with the
/// longest answer exceeds the context, the prompt loses tokens from its left, behind such a token
/// at its beginning; up to a
/// [`Boundary::Prompt`] it keeps at least one, without which an answer's first token would be
/// predicted by nothing. Dropped are records with an answer that leaves no room and, unless
/// [`for_scoring`](TokeniseOptions::for_scoring), records whose compared responses are the same
/// tokens, and with [`Boundary::Prompt`] those without a prompt; a ranking that loses only some
/// comparisons so spreads their weight over the others.
///
/// # Errors
///
/// The tokenizer's own; [`Error::Model`] for a token id that is not in the model's vocabulary;
/// [`Error::Data`] when there are records and none is left, except for scoring.
pub fn tokenise(
    records: &[Record],
    place: &str,
    tokenizer: &dyn Tokenizer,
    options: TokeniseOptions,
) -> Result<Tokenised> {
    let mut tokenised = Tokenised::default();
    for record in records {
        let line = record.line;
        let sequences = record
            .responses
            .iter()
            .map(|response| sequence(record, response, tokenizer))
            .collect::<Result<Vec<_>>>()?;
        check_vocabulary(&sequences, options.vocab_size)
            .map_err(|detail| misfit(place, line, &detail))?;
        let prompt = match options.boundary {
            Boundary::Longest => None,
            Boundary::Prompt => Some(record.prompt_tokens(tokenizer)?),
        };
        match usable(record, sequences, prompt.as_deref(), tokenizer, options) {
            Err(reason) => tokenised.dropped.push(Skipped { line, reason }),
            Ok((shared, cut)) => {
                tokenised.records.push(shared);
                if cut {
                    tokenised.truncated.push(line);
                }
            }
        }
    }
    match tokenised.dropped.first() {
        Some(first) if tokenised.records.is_empty() && !options.for_scoring => Err(line_error(
            place,
            first.line,
            format!(
                "{}; none of the {} records can be used",
                first.reason,
                records.len()
            ),
        )),
        _ => Ok(tokenised),
    }
}

impl Record {
    /// The token ids of the prompt, of a record of whole dialogues too; empty where there is none.
    ///
    /// # Errors
    ///
    /// The tokenizer's own.
    pub fn prompt_tokens(&self, tokenizer: &dyn Tokenizer) -> Result<Vec<u32>> {
        let text = match self.prompt.as_str() {
            "" => dialogue_prompt(&self.responses).unwrap_or_default(),
            prompt => prompt,
        };
        if text.is_empty() {
            return Ok(Vec::new());
        }
        encode(self, text, tokenizer)
    }
}

fn encode(record: &Record, text: &str, tokenizer: &dyn Tokenizer) -> Result<Vec<u32>> {
    match record.templated {
        true => tokenizer.encode(text),
        false => tokenizer.encode_text(text),
    }
}

/// The record in tokens and whether its prompt was shortened, or why it cannot be used.
fn usable(
    record: &Record,
    sequences: Vec<Vec<u32>>,
    prompt: Option<&[u32]>,
    tokenizer: &dyn Tokenizer,
    options: TokeniseOptions,
) -> Result<(TokenRecord, bool), String> {
    let shared = share(record, sequences, prompt)?;
    if prompt.is_some() && shared.prompt.is_empty() && !options.for_scoring {
        return Err("it has no prompt that its responses answer".into());
    }
    let mut shared = compare(shared, options.for_scoring)?;
    let cut = fit(&mut shared, tokenizer, options)?;
    Ok((shared, cut))
}

fn sequence(record: &Record, response: &str, tokenizer: &dyn Tokenizer) -> Result<Vec<u32>> {
    let mut tokens = encode(record, &format!("{}{response}", record.prompt), tokenizer)?;
    if let Some(eos) = tokenizer.eos_token_id()
        && !record.templated
        && tokens.last() != Some(&eos)
    {
        tokens.push(eos);
    }
    Ok(tokens)
}

fn check_vocabulary(sequences: &[Vec<u32>], vocab_size: usize) -> Result<(), String> {
    match sequences.iter().flatten().max() {
        Some(&largest) if largest as usize >= vocab_size => Err(format!(
            "token {largest} is outside the model's vocabulary of {vocab_size}"
        )),
        _ => Ok(()),
    }
}

fn misfit(place: &str, line: usize, detail: &str) -> Error {
    Error::Model {
        place: "tokenizer".into(),
        detail: format!(
            "{detail} (at {place}:{line}): the tokenizer does not fit the model, use the one it \
             was made with"
        ),
    }
}

/// Splits the sequences into what they share, with each other and with the `prompt` if there is
/// one, and what they do not.
fn share(
    record: &Record,
    sequences: Vec<Vec<u32>>,
    prompt: Option<&[u32]>,
) -> Result<TokenRecord, String> {
    let shortest = sequences.iter().map(Vec::len).min().unwrap_or_default();
    if shortest == 0 {
        return Err("a response has no token".into());
    }
    let most = prompt.map_or(shortest - 1, |prompt| prompt.len().min(shortest - 1));
    let first = prompt.unwrap_or(&sequences[0]);
    let shared = (0..most)
        .find(|&at| sequences.iter().any(|tokens| tokens[at] != first[at]))
        .unwrap_or(most);
    Ok(TokenRecord {
        line: record.line,
        prompt: sequences[0][..shared].to_vec(),
        answers: sequences
            .iter()
            .map(|tokens| tokens[shared..].to_vec())
            .collect(),
        preferences: record.preferences.clone(),
    })
}

/// Takes out comparisons between equal token sequences.
fn compare(mut record: TokenRecord, for_scoring: bool) -> Result<TokenRecord, String> {
    let weight = |preferences: &[Preference]| preferences.iter().map(|p| p.weight).sum::<f32>();
    let (count, before) = (record.preferences.len(), weight(&record.preferences));
    let answers = &record.answers;
    record
        .preferences
        .retain(|p| answers[p.chosen] != answers[p.rejected]);
    if record.preferences.is_empty() && !for_scoring {
        return Err(if count == 0 {
            "it has no comparison".into()
        } else {
            "the compared responses are the same tokens".into()
        });
    }
    if record.preferences.len() < count {
        let after = weight(&record.preferences);
        for preference in &mut record.preferences {
            preference.weight *= if after > 0.0 { before / after } else { 1.0 };
        }
    }
    Ok(record)
}

/// Shortens the prompt from its left until the longest answer fits; whether it had to.
fn fit(
    record: &mut TokenRecord,
    tokenizer: &dyn Tokenizer,
    options: TokeniseOptions,
) -> Result<bool, String> {
    let context = options.context;
    let longest = record.answers.iter().map(Vec::len).max().unwrap_or(0);
    if longest > context {
        return Err(format!(
            "an answer of {longest} tokens exceeds the context of {context}"
        ));
    }
    let has_prompt = options.boundary == Boundary::Prompt && !record.prompt.is_empty();
    if has_prompt && longest == context {
        return Err(format!(
            "an answer of {longest} tokens leaves no room for its prompt in the context of {context}"
        ));
    }
    let fits = record.prompt.len() <= context - longest;
    tokenizer.shorten(&mut record.prompt, context - longest);
    Ok(!fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ByteTokenizer, RecordForm};

    const EOS: u32 = ByteTokenizer::EOS;

    /// Bytes without special tokens, in which upper and lower case are the same.
    struct CaselessBytes;

    impl Tokenizer for CaselessBytes {
        fn encode(&self, text: &str) -> Result<Vec<u32>> {
            ByteTokenizer.encode(&text.to_lowercase())
        }
        fn decode(&self, ids: &[u32]) -> Result<String> {
            ByteTokenizer.decode(ids)
        }
        fn vocab_size(&self) -> usize {
            256
        }
        fn eos_token_id(&self) -> Option<u32> {
            None
        }
        fn pad_token_id(&self) -> Option<u32> {
            None
        }
    }

    fn record(line: usize, prompt: &str, responses: &[&str], orders: &[(usize, usize)]) -> Record {
        Record {
            line,
            form: RecordForm::Ranking,
            templated: false,
            prompt: prompt.into(),
            responses: responses.iter().map(|text| (*text).into()).collect(),
            preferences: orders
                .iter()
                .map(|&(chosen, rejected)| Preference {
                    chosen,
                    rejected,
                    weight: 1.0 / orders.len() as f32,
                    margin: 0.0,
                })
                .collect(),
        }
    }

    fn options(context: usize) -> TokeniseOptions {
        TokeniseOptions {
            context,
            vocab_size: 258,
            for_scoring: false,
            boundary: Boundary::Longest,
        }
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn one(record: Record, tokenizer: &dyn Tokenizer, context: usize) -> TokenRecord {
        tokenise(&[record], "f", tokenizer, options(context))
            .unwrap()
            .records
            .remove(0)
    }

    #[test]
    fn the_shared_prompt_reaches_into_the_answers() {
        let shared = one(
            record(1, "Q: ", &["yes", "yep"], &[(0, 1)]),
            &ByteTokenizer,
            99,
        );
        assert_eq!(shared.prompt, bytes("Q: ye"));
        assert_eq!(shared.answers[0], [u32::from(b's'), EOS]);
        assert_eq!(shared.answers[1], [u32::from(b'p'), EOS]);
    }

    #[test]
    fn an_answer_that_begins_another_keeps_a_token() {
        let pair = record(1, "Q", &["ab", "abcd"], &[(0, 1)]);
        let with_eos = one(pair.clone(), &ByteTokenizer, 99);
        assert_eq!(with_eos.prompt, bytes("Qab"));
        assert_eq!(with_eos.answers[0], [EOS]);
        let without = one(pair, &CaselessBytes, 99);
        assert_eq!(without.prompt, bytes("qa"));
        assert_eq!(without.answers, [bytes("b"), bytes("bcd")]);
        let single = one(record(1, "", &["a", "b"], &[(0, 1)]), &CaselessBytes, 99);
        assert!(single.prompt.is_empty());
    }

    #[test]
    fn the_prompt_loses_its_left_until_the_longest_answer_fits() {
        let pair = record(5, "abcdef", &["X", "YZ"], &[(0, 1)]);
        for (context, prompt) in [(9, "abcdef"), (8, "bcdef"), (4, "f"), (3, "")] {
            let done = tokenise(
                std::slice::from_ref(&pair),
                "f",
                &ByteTokenizer,
                options(context),
            )
            .unwrap();
            assert_eq!(done.records[0].prompt, bytes(prompt), "context {context}");
            assert_eq!(done.truncated.len(), usize::from(context < 9));
        }
        let other = record(6, "a", &["X", "Y"], &[(0, 1)]);
        let done = tokenise(&[pair, other], "f", &ByteTokenizer, options(2)).unwrap();
        assert_eq!(done.records.len(), 1);
        assert_eq!(done.truncated, [6]);
        assert_eq!(done.dropped[0].line, 5);
        assert_eq!(
            done.dropped[0].reason,
            "an answer of 3 tokens exceeds the context of 2"
        );
    }

    #[test]
    fn nothing_left_is_an_error_except_for_scoring() {
        let pair = [record(5, "", &["long", "longer"], &[(0, 1)])];
        let error = tokenise(&pair, "f", &ByteTokenizer, options(1)).unwrap_err();
        assert!(
            error.to_string().starts_with("f:5: an answer of "),
            "{error}"
        );
        let scoring = TokeniseOptions {
            for_scoring: true,
            ..options(1)
        };
        let done = tokenise(&pair, "f", &ByteTokenizer, scoring).unwrap();
        assert_eq!((done.records.len(), done.dropped.len()), (0, 1));
        assert_eq!(
            tokenise(&[], "f", &ByteTokenizer, options(1)).unwrap(),
            Tokenised::default()
        );
    }

    #[test]
    fn comparisons_of_equal_tokens_go() {
        let ranking = record(1, "", &["A", "a", "b"], &[(0, 1), (0, 2), (1, 2)]);
        let shared = one(ranking, &CaselessBytes, 9);
        let left: Vec<_> = shared
            .preferences
            .iter()
            .map(|p| (p.chosen, p.rejected, p.weight))
            .collect();
        assert_eq!(left, [(0, 2, 0.5), (1, 2, 0.5)]);
        let equal = [
            record(1, "", &["A", "a"], &[(0, 1)]),
            record(2, "", &["c", "a"], &[(0, 1)]),
        ];
        let done = tokenise(&equal, "f", &CaselessBytes, options(9)).unwrap();
        assert_eq!(
            done.dropped[0].reason,
            "the compared responses are the same tokens"
        );
        let scoring = TokeniseOptions {
            for_scoring: true,
            ..options(9)
        };
        let kept = tokenise(&equal, "f", &CaselessBytes, scoring).unwrap();
        assert_eq!(kept.records.len(), 2);
        assert_eq!(kept.records[0].answers, [bytes("a"), bytes("a")]);
    }

    #[test]
    fn a_tokenizer_of_another_model_is_refused() {
        let small = TokeniseOptions {
            vocab_size: 256,
            ..options(99)
        };
        let pair = [record(7, "", &["a", "b"], &[(0, 1)])];
        let error = tokenise(&pair, "f", &ByteTokenizer, small).unwrap_err();
        assert!(matches!(error, Error::Model { .. }));
        let message = error.to_string();
        assert!(
            message.contains("token 256 ") && message.contains("f:7"),
            "{message}"
        );
        assert!(tokenise(&pair, "f", &CaselessBytes, small).is_ok());
    }
}
