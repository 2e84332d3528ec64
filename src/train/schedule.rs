//! Learning rates: a linear warm-up, then a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983,
//! section 3, without restarts).

use serde::{Deserialize, Serialize};

/// A linear warm-up to `peak`, then half a cosine down to `floor`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest learning rate.
    pub peak: f64,
    /// The last learning rate.
    pub floor: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// All steps.
    pub total: u64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / length as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.floor + (self.peak - self.floor) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_to_the_peak_and_falls_to_the_floor() {
        let schedule = Schedule {
            peak: 1.0,
            floor: 0.1,
            warmup: 4,
            total: 24,
        };
        assert_eq!(schedule.learning_rate(0), 0.25);
        assert_eq!(schedule.learning_rate(3), 1.0);
        assert_eq!(schedule.learning_rate(4), 1.0);
        assert!((schedule.learning_rate(14) - 0.55).abs() < 1e-12);
        assert!((schedule.learning_rate(24) - 0.1).abs() < 1e-12);
        assert!((schedule.learning_rate(1000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn without_warm_up_it_starts_at_the_peak() {
        let schedule = Schedule {
            peak: 2.0,
            floor: 0.0,
            warmup: 0,
            total: 1,
        };
        assert_eq!(schedule.learning_rate(0), 2.0);
    }
}
