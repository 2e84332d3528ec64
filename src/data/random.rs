//! A small counter-based random number generator, for initial weights, data order and synthetic
//! data.
//!
//! The n-th number of a stream is a function of (seed, stream, n) alone, so a state is two
//! integers and can be saved exactly. The mixing function is SplitMix64's (Steele, Lea and Flood,
//! "Fast splittable pseudorandom number generators", OOPSLA 2014, section 4).

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The golden ratio in 64 bits: the step of SplitMix64's counter.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: a bijection of 64 bits in which each input bit changes about
/// half of the output bits.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Number `counter` (from 1) of SplitMix64 seeded with `key`.
pub fn split_mix(key: u64, counter: u64) -> u64 {
    mix(key.wrapping_add(GAMMA.wrapping_mul(counter)))
}

/// A stream of random numbers that depends on its seed, its stream number and nothing else.
///
/// Integers and uniform numbers are the same on every platform. Normal numbers go through the
/// system's `ln` and `cos`, so their last bit may differ between platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Random {
    key: u64,
    counter: u64,
}

impl Random {
    /// Stream number `stream` of `seed`, from its beginning.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self {
            key: mix(mix(seed.wrapping_add(GAMMA)).wrapping_add(stream)),
            counter: 0,
        }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        split_mix(self.key, self.counter)
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    ///
    /// By multiplication of the high bits (Lemire 2019, "Fast random integer generation in an
    /// interval", section 4, without its rejection step): the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Puts values into a random order, by Fisher and Yates's method; all orders are equally likely
    /// but for the bias of [`below`](Self::below).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }

    /// Normal with mean 0 and variance 1, by Box and Muller (1958, "A note on the generation of
    /// random normal deviates"); takes two numbers of the stream.
    pub fn normal(&mut self) -> f32 {
        // (0, 1], so that the logarithm is finite.
        let radius = ((self.next_u64() >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
        let angle = (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }

    /// The next `count` of what [`normal`](Self::normal) gives, made by all cores.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        let first = self.counter;
        let parts = Mutex::new(values.chunks_mut(PART).enumerate());
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((index, part)) = next() {
                let mut random = self.clone();
                random.counter = first.wrapping_add(2 * (index * PART) as u64);
                part.fill_with(|| random.normal());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..count.div_ceil(PART).min(cores()) {
                // Where the system gives no thread, this one does its work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        self.counter = first.wrapping_add(2 * count as u64);
        values
    }
}

/// Numbers that a core makes at a time.
const PART: usize = 1 << 14;

fn cores() -> usize {
    match cfg!(target_arch = "wasm32") {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_published_sequence() {
        let numbers: Vec<u64> = (1..=5).map(|n| split_mix(1_234_567, n)).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn streams_and_seeds_differ_and_repeat() {
        let first = |seed, stream| Random::new(seed, stream).next_u64();
        assert_eq!(first(1, 2), first(1, 2));
        let all = [first(0, 0), first(0, 1), first(1, 0), first(1, 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn a_saved_state_continues() {
        let mut random = Random::new(7, 0);
        random.normal();
        let text = serde_json::to_string(&random).unwrap();
        let mut restored: Random = serde_json::from_str(&text).unwrap();
        assert_eq!(random.next_u64(), restored.next_u64());
    }

    #[test]
    fn many_normal_numbers_are_those_one_by_one() {
        for count in [0, 1, PART, 3 * PART + 5] {
            let mut random = Random::new(7, count as u64);
            random.next_u64();
            let mut twin = random.clone();
            let one_by_one: Vec<f32> = (0..count).map(|_| twin.normal()).collect();
            assert_eq!(random.normals(count), one_by_one);
            assert_eq!(random, twin);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(3, 0);
        let n = 100_000;
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(random.uniform())).collect();
        let normal: Vec<f64> = (0..n).map(|_| f64::from(random.normal())).collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        assert!(uniform.iter().all(|u| (0.0..1.0).contains(u)));
        assert!((mean(&uniform) - 0.5).abs() < 0.005);
        assert!((square(&uniform) - 1.0 / 3.0).abs() < 0.005);
        assert!(mean(&normal).abs() < 0.015);
        assert!((square(&normal) - 1.0).abs() < 0.03);
        // Each side of a normal variable beyond two deviations holds 2.28 %.
        let tail = normal.iter().filter(|v| **v > 2.0).count() as f64 / f64::from(n);
        assert!((tail - 0.0228).abs() < 0.003);
    }

    #[test]
    fn below_is_even_and_bounded() {
        let mut random = Random::new(5, 9);
        let mut seen = [0usize; 7];
        for _ in 0..70_000 {
            seen[random.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)));
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }
}
