//! [`Trial`]: a plan with its inputs, its expected outputs and sentinels around both.

use crate::gpu::{Gpu, Plan, Tensor};
use crate::reference::compare::relative_error;
use crate::{Error, Result};

/// Elements before and after each tensor that no kernel may touch: 256 bytes, the largest offset
/// alignment a device may ask for.
const GUARD: usize = 64;
const SENTINEL: f32 = -7.25e18;

/// `len` values in [-scale, scale), the same on every machine: a golden-ratio sequence.
pub fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    (0..len as u64)
        .map(|i| {
            let mut x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ seed.wrapping_mul(0xd1b5_4a32_d192_ed03);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let unit = (x >> 40) as f32 / (1u64 << 24) as f32;
            (unit * 2.0 - 1.0) * scale
        })
        .collect()
}

struct Guarded {
    whole: Tensor,
    /// What an input must still hold after the run.
    input: Option<Vec<f32>>,
    len: usize,
}

struct Expected {
    name: String,
    tensor: Tensor,
    values: Vec<f64>,
    bound: f64,
    /// Which of how many columns of the tensor the values are.
    column: (usize, usize),
}

/// The outcome of one output of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The output's name.
    pub output: String,
    /// max|a-b| / max|b|, infinite where a value is not finite or a sentinel was overwritten.
    pub error: f64,
    /// The largest error allowed.
    pub bound: f64,
}

impl Verdict {
    /// Whether the error is within its bound.
    pub fn passed(&self) -> bool {
        self.error <= self.bound
    }
}

/// A plan with its inputs, its expected outputs and sentinels around both.
pub struct Trial {
    /// The plan under test.
    pub plan: Plan,
    guarded: Vec<Guarded>,
    expected: Vec<Expected>,
}

impl Trial {
    /// An empty trial on this device.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            plan: Plan::new(gpu),
            guarded: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// A tensor that the kernels only read.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn input(&mut self, label: &str, shape: &[usize], values: &[f32]) -> Result<Tensor> {
        self.guard(label, shape, values, true)
    }

    /// A tensor that the kernels write, with what it holds before.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn output(&mut self, label: &str, shape: &[usize], before: &[f32]) -> Result<Tensor> {
        self.guard(label, shape, before, false)
    }

    /// A tensor that the kernels must overwrite: it starts as sentinels.
    ///
    /// # Errors
    ///
    /// As [`Tensor::zeros`].
    pub fn overwritten(&mut self, label: &str, shape: &[usize]) -> Result<Tensor> {
        let len = shape.iter().product();
        self.guard(label, shape, &vec![SENTINEL; len], false)
    }

    fn guard(
        &mut self,
        label: &str,
        shape: &[usize],
        values: &[f32],
        read: bool,
    ) -> Result<Tensor> {
        let len: usize = shape.iter().product();
        if values.len() != len {
            return Err(Error::Shape {
                op: "check",
                detail: format!("`{label}` {shape:?} got {} values", values.len()),
            });
        }
        let mut all = vec![SENTINEL; len + 2 * GUARD];
        all[GUARD..GUARD + len].copy_from_slice(values);
        let whole = Tensor::from_slice(self.plan.gpu(), label, &[all.len()], &all)?;
        let tensor = whole.window(label, GUARD, shape)?;
        self.guarded.push(Guarded {
            whole,
            input: read.then(|| values.to_vec()),
            len,
        });
        Ok(tensor)
    }

    /// States what a tensor must hold after the plan ran, within `bound` (max|a-b| / max|b|;
    /// absolute where every expected value is zero).
    pub fn expect(&mut self, tensor: &Tensor, values: Vec<f64>, bound: f64) {
        self.expected.push(Expected {
            name: tensor.label().to_owned(),
            tensor: tensor.clone(),
            values,
            bound,
            column: (0, 1),
        });
    }

    /// As [`Trial::expect`], for column `column` of a matrix: figures that each have a bound of
    /// their own.
    pub fn expect_column(
        &mut self,
        name: &str,
        tensor: &Tensor,
        column: usize,
        values: Vec<f64>,
        bound: f64,
    ) {
        self.expected.push(Expected {
            name: format!("{} {name}", tensor.label()),
            tensor: tensor.clone(),
            values,
            bound,
            column: (column, tensor.shape().last().copied().unwrap_or(1)),
        });
    }

    /// Runs the plan and compares every output, then every sentinel and input.
    ///
    /// # Errors
    ///
    /// What the device reports; a wrong answer is a [`Verdict`], not an error.
    pub fn run(&self) -> Result<Vec<Verdict>> {
        self.plan.submit();
        self.verdicts()
    }

    /// Compares without running the plan again.
    ///
    /// # Errors
    ///
    /// As [`Trial::run`].
    pub fn verdicts(&self) -> Result<Vec<Verdict>> {
        let gpu = self.plan.gpu();
        let mut verdicts = Vec::new();
        for expected in &self.expected {
            let all: Vec<f32> = expected.tensor.read(gpu)?;
            let (column, columns) = expected.column;
            let actual: Vec<f32> = all.into_iter().skip(column).step_by(columns).collect();
            verdicts.push(Verdict {
                output: expected.name.clone(),
                error: relative_error(&actual, &expected.values),
                bound: expected.bound,
            });
        }
        for guarded in &self.guarded {
            let all: Vec<f32> = guarded.whole.read(gpu)?;
            let (before, rest) = all.split_at(GUARD);
            let (inside, after) = rest.split_at(guarded.len);
            let guards = before.iter().chain(after).all(|&value| value == SENTINEL);
            let inputs = guarded
                .input
                .as_ref()
                .is_none_or(|input| bits_equal(input, inside));
            if !guards || !inputs {
                verdicts.push(Verdict {
                    output: format!("{} (written outside its place)", guarded.whole.label()),
                    error: f64::INFINITY,
                    bound: 0.0,
                });
            }
        }
        Ok(verdicts)
    }
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
