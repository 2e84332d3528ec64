//! What a reward model has to beat: two judges that read no meaning.

use std::collections::{HashMap, VecDeque};

use crate::statistics::{Proportion, accuracy, sigmoid};

/// The answers of a pair, without their prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerPair<'a> {
    /// The answer that people preferred.
    pub chosen: &'a str,
    /// The other one.
    pub rejected: &'a str,
}

/// Takes the prompt off two texts that begin alike, as in HH-RLHF: it ends with the last
/// `"\n\nAssistant:"` that both share. Without one, both texts are answers as a whole.
pub fn split_dialogue<'a>(chosen: &'a str, rejected: &'a str) -> AnswerPair<'a> {
    const TURN: &str = "\n\nAssistant:";
    let shared: usize = chosen
        .chars()
        .zip(rejected.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum();
    let start = chosen[..shared].rfind(TURN).map_or(0, |at| at + TURN.len());
    AnswerPair {
        chosen: &chosen[start..],
        rejected: &rejected[start..],
    }
}

/// How often people preferred the longer answer, by characters; equal lengths count one half.
pub fn longer_answer(pairs: &[AnswerPair]) -> Proportion {
    let length = |text: &str| text.chars().count() as f64;
    let gaps: Vec<f64> = pairs
        .iter()
        .map(|pair| length(pair.chosen) - length(pair.rejected))
        .collect();
    accuracy(&gaps)
}

/// Logistic regression on words: `r(answer) = Σ_w θ_w log(1 + count_w(answer))`, fitted so that
/// `σ(r(chosen) - r(rejected))` predicts the preference.
///
/// The words are the runs of letters and digits, in lower case. The fit minimises
/// `-Σ log σ(θ·x) + ½ λ |θ|²` to its one minimum, so it depends on nothing but the data.
#[derive(Debug, Clone)]
pub struct BagOfWords {
    words: HashMap<String, usize>,
    weights: Vec<f64>,
}

impl BagOfWords {
    /// Fits the weights of all words in `pairs`; `l2` is λ above.
    pub fn fit(pairs: &[AnswerPair], l2: f64) -> Self {
        let mut words = HashMap::new();
        let rows: Vec<SparseRow> = pairs
            .iter()
            .map(|pair| {
                difference(pair, |word| {
                    let next = words.len();
                    Some(*words.entry(word.to_owned()).or_insert(next))
                })
            })
            .collect();
        let weights = minimise(&Logistic { rows: &rows, l2 }, words.len());
        Self { words, weights }
    }

    /// Fits with the λ of 1, 3, 10, 30 and 100 that predicts best, by the loss above, when it is
    /// fitted on four fifths of `pairs` and asked about the other fifth, for each fifth in turn.
    pub fn fit_cross_validated(pairs: &[AnswerPair]) -> Self {
        const FOLDS: usize = 5;
        let loss = |l2: f64| -> f64 {
            let of_fold = |fold: usize| -> f64 {
                let is_asked = |&(index, _): &(usize, &AnswerPair)| index % FOLDS == fold;
                let (asked, known): (Vec<_>, Vec<_>) = pairs.iter().enumerate().partition(is_asked);
                let known: Vec<_> = known.into_iter().map(|(_, pair)| *pair).collect();
                let model = Self::fit(&known, l2);
                asked
                    .iter()
                    .map(|(_, pair)| log_loss(model.gap(pair)))
                    .sum()
            };
            (0..FOLDS).map(of_fold).sum()
        };
        let best = [1.0, 3.0, 10.0, 30.0, 100.0]
            .map(|l2| (loss(l2), l2))
            .into_iter()
            .min_by(|a, b| a.0.total_cmp(&b.0));
        Self::fit(pairs, best.map_or(1.0, |(_, l2)| l2))
    }

    /// `r(chosen) - r(rejected)`; words that were not seen in the fit count nothing.
    pub fn gap(&self, pair: &AnswerPair) -> f64 {
        difference(pair, |word| self.words.get(word).copied()).dot(&self.weights)
    }

    /// How often the preferred answer scores higher.
    pub fn accuracy(&self, pairs: &[AnswerPair]) -> Proportion {
        let gaps: Vec<f64> = pairs.iter().map(|pair| self.gap(pair)).collect();
        accuracy(&gaps)
    }
}

/// Columns in ascending order, so that sums have one order.
struct SparseRow(Vec<(usize, f64)>);

impl SparseRow {
    fn dot(&self, dense: &[f64]) -> f64 {
        self.0.iter().map(|&(column, x)| x * dense[column]).sum()
    }
}

/// `log(1 + count)` of the chosen answer minus that of the rejected one, for each word that
/// `column_of` knows.
fn difference(pair: &AnswerPair, mut column_of: impl FnMut(&str) -> Option<usize>) -> SparseRow {
    let mut counts: HashMap<usize, [u32; 2]> = HashMap::new();
    for (side, text) in [pair.chosen, pair.rejected].into_iter().enumerate() {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric());
        for column in words
            .filter(|word| !word.is_empty())
            .filter_map(&mut column_of)
        {
            counts.entry(column).or_default()[side] += 1;
        }
    }
    let mut row: Vec<_> = counts
        .into_iter()
        .filter(|(_, [chosen, rejected])| chosen != rejected)
        .map(|(column, counts)| {
            let [chosen, rejected] = counts.map(|count| f64::from(count).ln_1p());
            (column, chosen - rejected)
        })
        .collect();
    row.sort_unstable_by_key(|&(column, _)| column);
    SparseRow(row)
}

struct Logistic<'a> {
    rows: &'a [SparseRow],
    l2: f64,
}

impl Logistic<'_> {
    fn value_and_gradient(&self, weights: &[f64]) -> (f64, Vec<f64>) {
        let mut value = 0.5 * self.l2 * dot(weights, weights);
        let mut gradient: Vec<f64> = weights.iter().map(|w| self.l2 * w).collect();
        for row in self.rows {
            let gap = row.dot(weights);
            value += log_loss(gap);
            let slope = -sigmoid(-gap);
            for &(column, x) in &row.0 {
                gradient[column] += slope * x;
            }
        }
        (value, gradient)
    }
}

/// `-log σ(gap)`, in the form that neither overflows nor cancels.
fn log_loss(gap: f64) -> f64 {
    (-gap).max(0.0) + (-gap.abs()).exp().ln_1p()
}

/// L-BFGS with a backtracking line search (Nocedal and Wright, Numerical Optimization, 2nd ed.,
/// algorithms 7.4 and 7.5), until the gradient is a millionth of what it was at zero.
fn minimise(problem: &Logistic, size: usize) -> Vec<f64> {
    const MEMORY: usize = 10;
    const MOST_STEPS: usize = 500;
    let mut weights = vec![0.0; size];
    let (mut value, mut gradient) = problem.value_and_gradient(&weights);
    let enough = 1e-6 * norm(&gradient);
    let mut memory = VecDeque::new();
    for _ in 0..MOST_STEPS {
        if norm(&gradient) <= enough {
            break;
        }
        let direction = quasi_newton_direction(&gradient, &memory);
        let slope = dot(&direction, &gradient);
        // Before anything is known of the curvature, a step of length one at most.
        let mut step = if memory.is_empty() {
            (1.0 / norm(&gradient)).min(1.0)
        } else {
            1.0
        };
        let (next, next_value, next_gradient) = loop {
            let next: Vec<f64> = weights
                .iter()
                .zip(&direction)
                .map(|(w, d)| w + step * d)
                .collect();
            let (next_value, next_gradient) = problem.value_and_gradient(&next);
            if next_value <= value + 1e-4 * step * slope {
                break (next, next_value, next_gradient);
            }
            step *= 0.5;
            if step < 1e-10 {
                // As low as rounding allows.
                return weights;
            }
        };
        let moved = subtract(&next, &weights);
        let bend = subtract(&next_gradient, &gradient);
        memory.push_back((moved, bend));
        if memory.len() > MEMORY {
            memory.pop_front();
        }
        (weights, value, gradient) = (next, next_value, next_gradient);
    }
    weights
}

/// The two-loop recursion: minus the gradient through the remembered curvature.
fn quasi_newton_direction(gradient: &[f64], memory: &VecDeque<(Vec<f64>, Vec<f64>)>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut scales = Vec::with_capacity(memory.len());
    for (moved, bend) in memory.iter().rev() {
        let scale = dot(moved, &direction) / dot(moved, bend);
        add_scaled(&mut direction, -scale, bend);
        scales.push(scale);
    }
    if let Some((moved, bend)) = memory.back() {
        let first = dot(moved, bend) / dot(bend, bend);
        direction.iter_mut().for_each(|d| *d *= first);
    }
    for ((moved, bend), scale) in memory.iter().zip(scales.iter().rev()) {
        let correction = scale - dot(bend, &direction) / dot(moved, bend);
        add_scaled(&mut direction, correction, moved);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn subtract(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn add_scaled(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += scale * f);
}
