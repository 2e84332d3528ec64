//! What is timed: a kernel, and what builds its plan.

use anyhow::{Result, ensure};
use prefgrad::check::{Case, Purpose, cases};
use prefgrad::{Gpu, Plan};

/// A kernel at some size.
pub struct Work {
    /// As in `nn.matmul`.
    pub kernel: &'static str,
    /// As in `nn 512x512x512 store`.
    pub name: String,
    build: Box<Build>,
}

type Build = dyn Fn(&Gpu) -> Result<Plan>;

impl Work {
    /// Work whose plan `build` makes, with inputs on the device.
    pub fn new(
        kernel: &'static str,
        name: impl Into<String>,
        build: impl Fn(&Gpu) -> Result<Plan> + 'static,
    ) -> Self {
        Self {
            kernel,
            name: name.into(),
            build: Box::new(build),
        }
    }

    /// The plan, ready to be replayed.
    pub fn plan(&self, gpu: &Gpu) -> Result<Plan> {
        (self.build)(gpu)
    }
}

/// The cases of `prefgrad::check` that are for timing; building one checks its answers.
pub fn checked() -> Vec<Work> {
    cases()
        .into_iter()
        .filter(|case| case.purpose == Purpose::Timing)
        .map(|case| Work::new(case.kernel, case.name.clone(), move |gpu| right(&case, gpu)))
        .collect()
}

fn right(case: &Case, gpu: &Gpu) -> Result<Plan> {
    let trial = case.build(gpu)?;
    for verdict in trial.run()? {
        ensure!(
            verdict.passed(),
            "a wrong answer is not worth timing, run `doctor`: {verdict:?}"
        );
    }
    Ok(trial.plan)
}
