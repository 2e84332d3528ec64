//! Which records are held out, and in which order the others come.

use serde::{Deserialize, Serialize};

use super::dialogue::{common_prefix, dialogue_prompt};
use super::random::{Random, mix};
use super::records::Record;
use crate::{Error, Result};

/// Splits records into (train, held out), as indices in ascending order, such that no prompt
/// stands on both sides.
///
/// A hash of the prompt and the seed decides, so a record's side depends on nothing else: not on
/// the platform, the other records or their order. For a record without a prompt it is the text
/// up to and including the last `"\n\nAssistant:"` that its responses share, or where they share
/// none, all that they share. `held_out_fraction` is the expected share of prompts, so the share
/// of records varies around it.
///
/// # Errors
///
/// [`Error::Data`] for a fraction outside 0 to 1.
pub fn split_by_prompt(
    records: &[Record],
    held_out_fraction: f64,
    seed: u64,
) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(0.0..=1.0).contains(&held_out_fraction) {
        return Err(Error::Data {
            place: "held-out fraction".into(),
            detail: format!("{held_out_fraction} is not between 0 and 1"),
        });
    }
    Ok((0..records.len()).partition(|&index| {
        let hash = mix(hash_text(prompt_of(&records[index])) ^ mix(seed));
        // 53 bits, uniform in [0, 1).
        (hash >> 11) as f64 * (1.0 / (1u64 << 53) as f64) >= held_out_fraction
    }))
}

fn prompt_of(record: &Record) -> &str {
    if record.prompt.is_empty() {
        dialogue_prompt(&record.responses).unwrap_or_else(|| common_prefix(&record.responses))
    } else {
        &record.prompt
    }
}

/// FNV-1a in 64 bits (Fowler, Noll and Vo).
fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The order of one epoch, a function of seed and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffle {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
}

impl Shuffle {
    /// A permutation of `0..len`, by [`Random::shuffle`].
    pub fn permutation(&self, len: usize) -> Vec<usize> {
        let mut random = Random::new(self.seed, self.epoch);
        let mut order: Vec<usize> = (0..len).collect();
        random.shuffle(&mut order);
        order
    }
}

/// An endless order over `len` records, shuffled anew each epoch: an iterator of indices.
///
/// Its whole state is (seed, epoch, cursor, len). Saved and read back with serde it continues
/// with the same indices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataOrder {
    seed: u64,
    epoch: u64,
    cursor: usize,
    len: usize,
    /// The order of `epoch`, once it is needed.
    #[serde(skip)]
    permutation: Option<Vec<usize>>,
}

impl DataOrder {
    /// The order over `len` records from the beginning of epoch 0.
    pub fn new(seed: u64, len: usize) -> Self {
        Self {
            seed,
            epoch: 0,
            cursor: 0,
            len,
            permutation: None,
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The epoch of the index that was peeked at or given last, from 0.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many indices of this epoch were given.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// How many records it orders.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record, and so no index.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index that [`next`](Iterator::next) will give, without going on: a record that does
    /// not fit into a batch stays ahead. `None` only where there is no record.
    pub fn peek(&mut self) -> Option<usize> {
        if self.cursor >= self.len && self.len > 0 {
            self.epoch = self.epoch.wrapping_add(1);
            self.cursor = 0;
            self.permutation = None;
        }
        let shuffle = Shuffle {
            seed: self.seed,
            epoch: self.epoch,
        };
        self.permutation
            .get_or_insert_with(|| shuffle.permutation(self.len))
            .get(self.cursor)
            .copied()
    }
}

impl Iterator for DataOrder {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = self.peek()?;
        self.cursor += 1;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::RecordForm;

    fn record(prompt: &str, responses: &[&str]) -> Record {
        Record {
            line: 1,
            form: RecordForm::Pair,
            templated: false,
            prompt: prompt.into(),
            responses: responses.iter().map(|text| (*text).into()).collect(),
            preferences: Vec::new(),
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash_text(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash_text("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash_text("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_prompt_of_a_record_is_found() {
        let turns = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
        let (chosen, rejected) = (format!("{turns} I am"), format!("{turns} I was"));
        assert_eq!(prompt_of(&record("", &[&chosen, &rejected])), turns);
        assert_eq!(prompt_of(&record("p", &[&chosen, &rejected])), "p");
        assert_eq!(prompt_of(&record("", &["plain", "plane"])), "pla");
    }

    #[test]
    fn a_prompt_keeps_to_one_side_whatever_surrounds_it() {
        let all: Vec<Record> = (0..2000)
            .map(|i| record(&format!("prompt {}", i % 1000), &["a", "b"]))
            .collect();
        let (train, held_out) = split_by_prompt(&all, 0.15, 7).unwrap();
        assert_eq!(train.len() + held_out.len(), all.len());
        assert!((240..360).contains(&held_out.len()), "{}", held_out.len());
        for &index in held_out.iter().filter(|index| **index < 1000) {
            assert!(held_out.binary_search(&(index + 1000)).is_ok());
        }
        let (_, alone) = split_by_prompt(&all[held_out[0]..=held_out[0]], 0.15, 7).unwrap();
        assert_eq!(alone, [0]);
        let (_, other_seed) = split_by_prompt(&all, 0.15, 8).unwrap();
        assert_ne!(held_out, other_seed);
    }

    #[test]
    fn fractions_hold_at_their_ends_and_not_beyond() {
        let all = [record("p", &["a", "b"])];
        assert_eq!(split_by_prompt(&all, 0.0, 1).unwrap(), (vec![0], vec![]));
        assert_eq!(split_by_prompt(&all, 1.0, 1).unwrap(), (vec![], vec![0]));
        for fraction in [-0.1, 15.0, f64::NAN] {
            assert!(split_by_prompt(&all, fraction, 1).is_err());
        }
    }

    #[test]
    fn each_epoch_gives_each_record_once_in_a_new_order() {
        let mut order = DataOrder::new(3, 50);
        let epochs: Vec<Vec<usize>> = (0..3).map(|_| order.by_ref().take(50).collect()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        assert_ne!(epochs[1], epochs[2]);
        assert_eq!(Shuffle { seed: 3, epoch: 2 }.permutation(50), epochs[2]);
    }

    #[test]
    fn a_saved_order_continues_from_anywhere() {
        let whole: Vec<usize> = DataOrder::new(9, 7).take(30).collect();
        for stop in 0..30 {
            for peek in [false, true] {
                let mut order = DataOrder::new(9, 7);
                let mut seen: Vec<usize> = order.by_ref().take(stop).collect();
                if peek {
                    assert_eq!(order.peek(), Some(whole[stop]));
                }
                let saved = serde_json::to_string(&order).unwrap();
                let restored: DataOrder = serde_json::from_str(&saved).unwrap();
                seen.extend(restored.take(30 - stop));
                assert_eq!(seen, whole, "stopped after {stop}");
            }
        }
    }

    #[test]
    fn no_record_gives_no_index() {
        let mut order = DataOrder::new(1, 0);
        assert!(order.is_empty());
        assert_eq!((order.peek(), order.next()), (None, None));
    }

    #[test]
    fn all_permutations_of_three_are_about_equally_frequent() {
        let mut seen = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            let order = Shuffle { seed: 1, epoch }.permutation(3);
            *seen.entry(order).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(
            seen.values().all(|count| (880..1120).contains(count)),
            "{seen:?}"
        );
    }
}
