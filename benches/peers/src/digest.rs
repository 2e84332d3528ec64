//! Two numbers that stand for a tensor, by which the peers' answers are compared.

use prefgrad::check::values;
use serde::{Deserialize, Serialize};

/// How far two peers' digests may lie apart, relative to the norm.
pub const TOLERANCE: f64 = 1e-3;

/// A tensor's norm and its projection onto a fixed direction: the norm does not see values that
/// changed places, the projection does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    pub name: String,
    pub norm: f64,
    pub projection: f64,
}

impl Digest {
    pub fn of(name: &str, tensor: &[f32]) -> Self {
        let direction = values(99, tensor.len(), 1.7);
        let wide = || tensor.iter().map(|&x| f64::from(x));
        let products = wide().zip(direction).map(|(x, d)| x * f64::from(d));
        Self {
            name: name.to_owned(),
            norm: wide().map(|x| x * x).sum::<f64>().sqrt(),
            projection: products.sum(),
        }
    }

    /// That of a single figure.
    pub fn figure(name: &str, value: f64) -> Self {
        Self {
            name: name.to_owned(),
            norm: value.abs(),
            projection: value,
        }
    }

    pub fn is_finite(&self) -> bool {
        self.norm.is_finite() && self.projection.is_finite()
    }

    /// The larger of the two differences, relative to the other's norm.
    fn error(&self, other: &Self) -> f64 {
        let apart = (self.norm - other.norm).abs();
        let apart = apart.max((self.projection - other.projection).abs());
        apart / other.norm.max(f64::MIN_POSITIVE)
    }
}

/// What of `ours` differs from `theirs`, in words; `None` where they agree.
pub fn difference(ours: &[Digest], theirs: &[Digest]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} answers, not {}", theirs.len(), ours.len()));
    }
    let wrong = ours.iter().zip(theirs).find_map(|(ours, theirs)| {
        let error = theirs.error(ours);
        let same = ours.name == theirs.name && error <= TOLERANCE;
        (!same).then(|| format!("{} is off by {error:.1e}", theirs.name))
    });
    wrong.map(|wrong| format!("wrong: {wrong}"))
}
