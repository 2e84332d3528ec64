//! What the crate asks of a tokenizer, and the simplest one: bytes.

use crate::{Error, Result};

/// Turns text into token ids and back.
///
/// The library brings [`ByteTokenizer`] only; a program wraps the tokenizer of its choice.
pub trait Tokenizer {
    /// The token ids of `text`, without special tokens of the tokenizer's own accord.
    ///
    /// # Errors
    ///
    /// Whatever the tokenizer refuses, as [`Error::Model`] or [`Error::Data`].
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The text of `ids`; special tokens are left out.
    ///
    /// # Errors
    ///
    /// An id that is not in the vocabulary.
    fn decode(&self, ids: &[u32]) -> Result<String>;

    /// One more than the largest id that [`encode`](Self::encode) or the special tokens give.
    fn vocab_size(&self) -> usize;

    /// The end-of-text token, appended to each sequence where there is one.
    fn eos_token_id(&self) -> Option<u32>;

    /// The token that the tokenizer itself puts before each text, where it puts one.
    fn bos_token_id(&self) -> Option<u32> {
        None
    }

    /// The token ids of a text that no chat template wrote: [`encode`](Self::encode) behind the
    /// [`bos_token_id`](Self::bos_token_id), which a text that begins with it does not get twice.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.encode(text)?;
        if let Some(bos) = self.bos_token_id()
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// Takes tokens from the left until at most `longest` are left, of which a
    /// [`bos_token_id`](Self::bos_token_id) at the beginning stays.
    fn shorten(&self, tokens: &mut Vec<u32>, longest: usize) {
        let excess = tokens.len().saturating_sub(longest);
        let begins = tokens
            .first()
            .copied()
            .filter(|&first| Some(first) == self.bos_token_id());
        let kept = usize::from(begins.is_some() && longest > 0);
        tokens.drain(kept..kept + excess);
    }

    /// The padding token: packed batches hold none, but the pooling rule of sequence
    /// classifiers passes over it (see [`Batch::answers`](super::Batch::answers)).
    fn pad_token_id(&self) -> Option<u32>;
}

/// The bytes of the text as tokens: ids 0 to 255, then [`EOS`](Self::EOS) and
/// [`PAD`](Self::PAD); a vocabulary of 258.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteTokenizer;

impl ByteTokenizer {
    /// End of text.
    pub const EOS: u32 = 256;
    /// Padding.
    pub const PAD: u32 = 257;
    /// 256 bytes and the two special tokens.
    pub const VOCAB_SIZE: usize = 258;
}

impl Tokenizer for ByteTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    /// Bytes that are not UTF-8 become U+FFFD.
    fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut bytes = Vec::with_capacity(ids.len());
        for &id in ids {
            match u8::try_from(id) {
                Ok(byte) => bytes.push(byte),
                Err(_) if id == Self::EOS || id == Self::PAD => {}
                Err(_) => {
                    return Err(Error::Model {
                        place: "byte tokenizer".into(),
                        detail: format!(
                            "token {id} is not in its vocabulary of {}: it was made with another tokenizer",
                            Self::VOCAB_SIZE
                        ),
                    });
                }
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn vocab_size(&self) -> usize {
        Self::VOCAB_SIZE
    }

    fn eos_token_id(&self) -> Option<u32> {
        Some(Self::EOS)
    }

    fn pad_token_id(&self) -> Option<u32> {
        Some(Self::PAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_and_special_tokens_vanish() {
        let text = "naïve → \u{1F600}\n";
        let mut ids = ByteTokenizer.encode(text).unwrap();
        assert_eq!(ids.len(), text.len());
        ids.extend([ByteTokenizer::EOS, ByteTokenizer::PAD]);
        assert!(
            ids.iter()
                .all(|id| (*id as usize) < ByteTokenizer.vocab_size())
        );
        assert_eq!(ByteTokenizer.decode(&ids).unwrap(), text);
    }

    #[test]
    fn cut_characters_and_foreign_ids_do_not_pass_as_text() {
        assert_eq!(ByteTokenizer.decode(&[0xc3]).unwrap(), "\u{fffd}");
        let error = ByteTokenizer.decode(&[65, 258]).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
    }
}
