//! What is said about a model's judgements: accuracy with its interval, calibration, correlation.

/// A share of successes with its 95 % interval, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proportion {
    /// The share observed.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// How many were judged.
    pub total: usize,
}

impl std::fmt::Display for Proportion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} % ({:.1} to {:.1}, n = {})",
            100.0 * self.value,
            100.0 * self.low,
            100.0 * self.high,
            self.total
        )
    }
}

/// The 95 % score interval of Wilson (1927, JASA 22, "Probable inference, the law of succession,
/// and statistical inference"), which stays within 0 to 1 and is of use for small counts.
///
/// `successes` may hold halves, as ties do; for no trials the interval is the whole range.
pub fn wilson_interval(successes: f64, total: usize) -> Proportion {
    const Z: f64 = 1.959_963_984_540_054;
    if total == 0 {
        return Proportion {
            value: f64::NAN,
            low: 0.0,
            high: 1.0,
            total,
        };
    }
    let n = total as f64;
    let value = successes / n;
    let centre = (value + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    Proportion {
        value,
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
        total,
    }
}

/// How often the chosen answer has the higher reward; a tie counts one half. `gaps` are
/// `r_chosen - r_rejected`.
pub fn accuracy(gaps: &[f64]) -> Proportion {
    wilson_interval(gaps.iter().map(|&gap| win(gap)).sum(), gaps.len())
}

fn win(gap: f64) -> f64 {
    if gap > 0.0 {
        1.0
    } else if gap == 0.0 {
        0.5
    } else {
        0.0
    }
}

/// `1 / (1 + exp(-x))`, without overflow for any finite `x`.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        x.exp() / (1.0 + x.exp())
    }
}

/// The judgements whose confidence falls into one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationBin {
    /// Mean confidence of the bin's judgements, 0.5 to 1.
    pub confidence: f64,
    /// How often they were right.
    pub accuracy: Proportion,
}

/// How far stated confidence is from how often it is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The bins that hold judgements, by confidence.
    pub bins: Vec<CalibrationBin>,
    /// The number of bins that 0.5 to 1 is divided into, empty ones included.
    pub bin_count: usize,
    /// `Σ_b n_b / N · |accuracy_b - confidence_b|`, 0 to 1; NaN without judgements.
    pub expected_error: f64,
}

/// Calibration of the probabilities `σ(r_chosen - r_rejected)`, from the gaps in reward, in
/// `bin_count` bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).
///
/// Which answer of a pair comes first means nothing, so each pair is seen from the side that the
/// model favours: its confidence `max(p, 1 - p)` lies between 0.5 and 1, and it is right when
/// that side was chosen. A tie has confidence 0.5 and is right by half.
pub fn calibration(gaps: &[f64], bin_count: usize) -> Calibration {
    let bin_count = bin_count.max(1);
    let mut sums = vec![(0usize, 0.0, 0.0); bin_count];
    for &gap in gaps {
        let confidence = sigmoid(gap.abs());
        let index = ((confidence - 0.5) * 2.0 * bin_count as f64) as usize;
        let (count, confidences, wins) = &mut sums[index.min(bin_count - 1)];
        *count += 1;
        *confidences += confidence;
        *wins += win(gap);
    }
    let bins: Vec<_> = sums
        .into_iter()
        .filter(|&(count, ..)| count > 0)
        .map(|(count, confidences, wins)| CalibrationBin {
            confidence: confidences / count as f64,
            accuracy: wilson_interval(wins, count),
        })
        .collect();
    let weighted: f64 = bins
        .iter()
        .map(|b| b.accuracy.total as f64 * (b.accuracy.value - b.confidence).abs())
        .sum();
    Calibration {
        bins,
        bin_count,
        expected_error: weighted / gaps.len() as f64,
    }
}

/// Pearson's correlation; `None` for fewer than two points, unequal lengths, or where one side
/// does not vary.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (&a, &b) in x.iter().zip(y) {
        xx += (a - mean_x) * (a - mean_x);
        yy += (b - mean_y) * (b - mean_y);
        xy += (a - mean_x) * (b - mean_y);
    }
    let scale = (xx * yy).sqrt();
    (scale > 0.0).then(|| (xy / scale).clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, ties at their mean rank; `None` as for [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = first as f64 + (tied.len() - 1) as f64 / 2.0;
        for &index in tied {
            ranks[index] = mean;
        }
        first += tied.len();
    }
    ranks
}
