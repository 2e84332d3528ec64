//! What a trained reward model is worth: accuracy against baselines, calibration, length bias.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use prefgrad::data::{Record, RecordForm, TokenRecord};
use serde_json::json;

use crate::baseline::{AnswerPair, BagOfWords, longer_answer, split_dialogue};
use crate::files::OutputFile;
use crate::plot::{TrainingCurves, calibration_diagram, training_curves};
use crate::statistics::{Calibration, Proportion, accuracy, calibration, pearson};
use crate::training::read_series;

const BINS: usize = 5;

/// How a reward model does on held-out comparisons.
#[derive(Debug, Clone)]
pub struct Report {
    /// The model's accuracy.
    pub model: Proportion,
    /// Accuracy of choosing the longer answer.
    pub longer: Proportion,
    /// Accuracy of logistic regression on word counts.
    pub bag_of_words: Proportion,
    /// Whether the model's confidence is right.
    pub calibration: Calibration,
    /// Correlation of an answer's reward with its length in tokens.
    pub length_correlation: Option<f64>,
}

impl Report {
    /// Judges rewards of `held_out`, whose texts are in `held_out_texts`; the baselines learn from
    /// `training_texts`.
    pub fn new(
        training_texts: &[&Record],
        held_out_texts: &[Record],
        held_out: &[TokenRecord],
        rewards: &[Vec<f32>],
    ) -> Self {
        let gaps: Vec<f64> = held_out
            .iter()
            .zip(rewards)
            .flat_map(|(record, rewards)| {
                record
                    .preferences
                    .iter()
                    .map(|p| f64::from(rewards[p.chosen]) - f64::from(rewards[p.rejected]))
            })
            .collect();
        let lengths: Vec<f64> = held_out
            .iter()
            .flat_map(|record| record.answers.iter().map(|answer| answer.len() as f64))
            .collect();
        let flat: Vec<f64> = rewards.iter().flatten().map(|&r| f64::from(r)).collect();
        // The same pairs for all three: those that survived tokenisation.
        let kept: Vec<&Record> = held_out
            .iter()
            .filter_map(|r| held_out_texts.iter().find(|text| text.line == r.line))
            .collect();
        let judged = answer_pairs(&kept);
        let bag_of_words = BagOfWords::fit_cross_validated(&answer_pairs(training_texts));
        Self {
            model: accuracy(&gaps),
            longer: longer_answer(&judged),
            bag_of_words: bag_of_words.accuracy(&judged),
            calibration: calibration(&gaps, BINS),
            length_correlation: pearson(&flat, &lengths),
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<34} {value}");
        };
        row("held-out accuracy, reward model", self.model.to_string());
        row("  always the longer answer", self.longer.to_string());
        row("  bag of words", self.bag_of_words.to_string());
        row(
            "calibration error",
            format!(
                "{:.3} (0: as sure as it is right)",
                self.calibration.expected_error
            ),
        );
        let correlation = match self.length_correlation {
            Some(value) => format!("{value:+.2} (0: no length bias)"),
            None => "not defined: all rewards or lengths are equal".into(),
        };
        row("correlation of reward and length", correlation);
        text
    }

    /// Writes `report.json`, `curves.png` and `calibration.png`.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, folder: &Path, title: &str) -> Result<()> {
        let proportion = |p: &Proportion| json!({"value": p.value, "low": p.low, "high": p.high, "pairs": p.total});
        let json = json!({
            "held_out_accuracy": proportion(&self.model),
            "longer_answer": proportion(&self.longer),
            "bag_of_words": proportion(&self.bag_of_words),
            "calibration_error": self.calibration.expected_error,
            "length_correlation": self.length_correlation,
        });
        let mut file = OutputFile::create(&folder.join("report.json"))?;
        std::io::Write::write_all(&mut file, format!("{json:#}\n").as_bytes())?;
        file.commit()?;
        let series = |name: &str| read_series(folder, name);
        training_curves(
            &folder.join("curves.png"),
            &TrainingCurves {
                title,
                train_loss: &series("train/loss")?,
                held_out_loss: &series("validation/loss")?,
                train_accuracy: &series("train/accuracy")?,
                held_out_accuracy: &series("validation/accuracy")?,
                levels: &[
                    ("longer answer", self.longer.value),
                    ("bag of words", self.bag_of_words.value),
                ],
            },
        )?;
        calibration_diagram(&folder.join("calibration.png"), title, &self.calibration)?;
        Ok(())
    }
}

/// The answers of every preference, without their prompts.
pub fn answer_pairs<'a>(records: &[&'a Record]) -> Vec<AnswerPair<'a>> {
    let mut pairs = Vec::new();
    for record in records {
        for preference in &record.preferences {
            let chosen = &record.responses[preference.chosen];
            let rejected = &record.responses[preference.rejected];
            let whole_texts = record.prompt.is_empty() && record.form == RecordForm::Pair;
            pairs.push(if whole_texts {
                split_dialogue(chosen, rejected)
            } else {
                AnswerPair { chosen, rejected }
            });
        }
    }
    pairs
}
