//! Known-answer cases for every kernel, computed against [`crate::reference`].
//!
//! One list serves the tests, the benches and the `doctor` example: each case builds a plan on the
//! device in hand, with sentinels around every buffer, and knows what must come out.

pub mod driver;
mod language;
pub mod nn;
mod optim;
mod policy;
mod preference;
pub mod reduce;
mod support;
mod trial;

pub use policy::answer_lists;
pub use trial::{Trial, Verdict, values};

use std::sync::Arc;

use crate::Result;
use crate::gpu::Gpu;

/// What a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Right answers: odd sizes, extremes. Quick enough for every device.
    Answer,
    /// A size worth timing; its answers are checked as well.
    Timing,
}

/// One kernel on one set of inputs.
#[derive(Clone)]
pub struct Case {
    /// The kernel, as in `nn.matmul`.
    pub kernel: &'static str,
    /// What is special about this case, as in `tn 17x33x9`.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    build: Arc<Build>,
}

type Build = dyn Fn(&Gpu) -> Result<Trial> + Send + Sync;

impl Case {
    /// A case whose plan `build` makes.
    pub fn new(
        kernel: &'static str,
        name: impl Into<String>,
        purpose: Purpose,
        build: impl Fn(&Gpu) -> Result<Trial> + Send + Sync + 'static,
    ) -> Self {
        Self {
            kernel,
            name: name.into(),
            purpose,
            build: Arc::new(build),
        }
    }

    /// Makes the inputs, the plan and the expected answers.
    ///
    /// # Errors
    ///
    /// What the kernel or the device refuses.
    pub fn build(&self, gpu: &Gpu) -> Result<Trial> {
        (self.build)(gpu)
    }
}

/// Every case of every kernel.
pub fn cases() -> Vec<Case> {
    let mut cases = nn::cases();
    cases.extend(optim::cases());
    cases.extend(policy::cases());
    cases.extend(preference::cases());
    cases.extend(reduce::cases());
    cases
}
