//! [`KlOptions`] and [`KlController`]: how strongly a policy is held to its reference.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the divergence from the reference is charged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KlOptions {
    /// The coefficient that the divergence is multiplied by, at the start.
    pub coef: f64,
    /// The divergence a response, in nats, that the coefficient is steered towards; `None`: it
    /// stays as it is.
    pub target: Option<f64>,
    /// Responses over which the coefficient can change by about a tenth to a fifth.
    pub horizon: f64,
    /// Training ends when the mean divergence a response passes this many nats.
    pub limit: Option<f64>,
}

impl Default for KlOptions {
    fn default() -> Self {
        Self {
            coef: 0.05,
            target: None,
            horizon: 10_000.0,
            limit: None,
        }
    }
}

impl KlOptions {
    /// Checks that the numbers can be meant.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] names the option.
    pub fn validate(&self) -> Result<()> {
        let positive = |value: Option<f64>| value.is_none_or(|v| v.is_finite() && v > 0.0);
        let wrong = if !(self.coef.is_finite() && self.coef >= 0.0) {
            "kl.coef must be 0 or more"
        } else if !positive(self.target) {
            "kl.target must be positive"
        } else if !positive(self.limit) {
            "kl.limit must be positive"
        } else if !(self.horizon.is_finite() && self.horizon > 0.0) {
            "kl.horizon must be positive"
        } else if self.target.is_some() && self.coef == 0.0 {
            "kl.target cannot steer a kl.coef of 0: start from 0.01, say"
        } else {
            return Ok(());
        };
        Err(Error::shape("policy options", wrong))
    }
}

/// The coefficient of the divergence, fixed or steered (Ziegler et al. 2019, arXiv 1909.08593,
/// section 2.2: a proportional controller in log space).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KlController {
    options: KlOptions,
    coef: f64,
}

impl KlController {
    /// Starts at the options' coefficient.
    pub fn new(options: KlOptions) -> Self {
        Self {
            options,
            coef: options.coef,
        }
    }

    /// The coefficient now.
    pub fn coef(&self) -> f64 {
        self.coef
    }

    /// Takes in the mean divergence `kl` of `responses` responses.
    pub fn update(&mut self, kl: f64, responses: usize) {
        let Some(target) = self.options.target else {
            return;
        };
        let error = (kl / target - 1.0).clamp(-0.2, 0.2);
        // More responses than the horizon would else make the coefficient negative.
        let share = (responses as f64 / self.options.horizon).min(1.0);
        self.coef *= 1.0 + error * share;
    }

    /// Whether `kl` is where training is to end.
    pub fn is_over(&self, kl: f64) -> bool {
        self.options.limit.is_some_and(|limit| kl > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coefficient_moves_towards_the_target_and_no_faster_than_a_fifth() {
        let options = KlOptions {
            coef: 0.1,
            target: Some(6.0),
            horizon: 1000.0,
            ..KlOptions::default()
        };
        let mut controller = KlController::new(options);
        controller.update(6.6, 500);
        assert!((controller.coef() - 0.1 * (1.0 + 0.1 * 0.5)).abs() < 1e-12);
        let before = controller.coef();
        controller.update(600.0, 1000);
        assert!((controller.coef() / before - 1.2).abs() < 1e-12);
        controller.update(0.0, 1000);
        assert!((controller.coef() / before - 1.2 * 0.8).abs() < 1e-12);
        let before = controller.coef();
        controller.update(0.0, 100_000);
        assert!((controller.coef() / before - 0.8).abs() < 1e-12);
    }

    #[test]
    fn without_a_target_it_stays() {
        let mut controller = KlController::new(KlOptions::default());
        controller.update(100.0, 1000);
        assert_eq!(controller.coef(), KlOptions::default().coef);
        assert!(!controller.is_over(1e9));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let wrong = |options: KlOptions| options.validate().unwrap_err().to_string();
        let default = KlOptions::default();
        let error = wrong(KlOptions {
            coef: f64::NAN,
            ..default
        });
        assert!(error.contains("kl.coef"), "{error}");
        let error = wrong(KlOptions {
            target: Some(0.0),
            ..default
        });
        assert!(error.contains("kl.target"), "{error}");
        assert!(default.validate().is_ok());
    }
}
