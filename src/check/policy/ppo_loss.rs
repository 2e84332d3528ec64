//! Cases of `policy.ppo_loss`.

use super::answers::{SLOT, as_structs, expect_row, policy_row, ring, struct_input};
use crate::Result;
use crate::check::support::{expect_start, partly_written};
use crate::check::{Case, Purpose, Trial, values};
use crate::data::batch::Counts;
use crate::gpu::{Gpu, Tensor};
use crate::kernels::policy::ppo_loss::{PpoLossIo, PpoLossOptions, ppo_loss};
use crate::kernels::policy::{
    Experience, KlControl, KlEstimator, POLICY_METRICS, TokenGradient, TokenLogprob,
};
use crate::reference::policy::ppo_loss as reference;

const BOUND: f64 = 1e-5;
const KL_COEF: f32 = 0.15;
const TARGET_SCALE: f32 = 0.375;
const VALUE_SCALE: f32 = 0.625;

#[derive(Debug, Clone, Copy)]
struct Shape {
    targets: usize,
    /// Targets of the batch, where it has counts.
    live: Option<usize>,
    /// Log-ratios lie in ± this.
    spread: f32,
    kl: Option<KlEstimator>,
    /// Every how many targets one has weight 0; 1: all.
    masked: usize,
}

pub(super) fn cases() -> Vec<Case> {
    let plain = |targets| Shape {
        targets,
        live: None,
        spread: 0.6,
        kl: None,
        masked: 5,
    };
    let mut cases: Vec<Case> = [1, 2, 63, 64, 65, 129, 1009, 20_011]
        .map(|targets| case(plain(targets), Purpose::Answer))
        .into();
    for (kl, spread) in [
        (KlEstimator::K1, 0.6),
        (KlEstimator::K2, 1e-3),
        (KlEstimator::K3, 1e-3),
        (KlEstimator::K3, 0.6),
        (KlEstimator::K3, 8.0),
    ] {
        let shape = Shape {
            kl: Some(kl),
            spread,
            ..plain(257)
        };
        cases.push(case(shape, Purpose::Answer));
    }
    for (live, masked) in [(0, 5), (1, 5), (64, 5), (130, 5), (200, 5), (130, 1)] {
        let shape = Shape {
            live: Some(live),
            masked,
            ..plain(200)
        };
        cases.push(case(shape, Purpose::Answer));
    }
    cases.push(case(plain(1 << 18), Purpose::Timing));
    cases
}

fn case(shape: Shape, purpose: Purpose) -> Case {
    let name = format!(
        "{} targets, live {:?}, log-ratios within {:e}, penalty {:?}, one of {} masked",
        shape.targets, shape.live, shape.spread, shape.kl, shape.masked
    );
    Case::new("policy.ppo_loss", name, purpose, move |gpu| {
        build(gpu, shape)
    })
}

/// What a policy said, says, and learns from.
struct Inputs {
    logprobs: Vec<TokenLogprob>,
    experience: Vec<Experience>,
    values: Vec<f32>,
}

fn inputs(shape: &Shape) -> Inputs {
    let n = shape.targets;
    let [now, old, reference, entropy] = [1, 2, 3, 4].map(|seed| values(seed, n, 1.0));
    let [value, moved, advantage, returns] = [5, 6, 7, 8].map(|seed| values(seed, n, 1.0));
    let logprobs = (0..n).map(|i| TokenLogprob {
        logprob: -2.0 + now[i],
        entropy: 1.5 + entropy[i],
        ..TokenLogprob::default()
    });
    let experience = (0..n).map(|i| Experience {
        logprob: -2.0 + now[i] + shape.spread * old[i],
        ref_logprob: -2.0 + now[i] + shape.spread * reference[i],
        value: value[i] + 0.5 * moved[i],
        advantage: advantage[i],
        returns: returns[i],
        weight: if i % shape.masked == shape.masked - 1 {
            0.0
        } else {
            1.25 + 0.5 * entropy[i]
        },
        pad: [0; 2],
    });
    Inputs {
        logprobs: logprobs.collect(),
        experience: experience.collect(),
        values: value.clone(),
    }
}

fn build(gpu: &Gpu, shape: Shape) -> Result<Trial> {
    let mut trial = Trial::new(gpu);
    let n = shape.targets;
    let inputs = inputs(&shape);
    let counts = Counts {
        targets: shape.live.unwrap_or(n) as u32,
        slot: SLOT,
        pair_scale: VALUE_SCALE,
        target_scale: TARGET_SCALE,
        ..Counts::default()
    };
    let counts = Tensor::from_slice(gpu, "counts", &[1], &[counts])?;
    let control = KlControl {
        kl_coef: KL_COEF,
        ..KlControl::default()
    };
    let logprobs = struct_input(&mut trial, "logprobs", &inputs.logprobs)?;
    let experience = struct_input(&mut trial, "experience", &inputs.experience)?;
    let values = trial.input("values", &[n], &inputs.values)?;
    let gradients = partly_written(&mut trial, "gradients", &[2 * n])?;
    let dvalues = partly_written(&mut trial, "dvalues", &[n])?;
    let metrics = ring(&mut trial)?;
    let rows = n.div_ceil(64);
    let partials = trial.overwritten("partials", &[rows * POLICY_METRICS])?;
    let options = PpoLossOptions {
        clip_range: 0.2,
        clip_range_value: shape.kl.is_none().then_some(0.2),
        vf_coef: 0.3,
        entropy_coef: 0.05,
        kl_in_loss: shape.kl,
        target_scale: TARGET_SCALE,
        value_scale: VALUE_SCALE,
    };
    let io = PpoLossIo {
        logprobs: &logprobs,
        experience: &experience,
        values: &values,
        gradients: &as_structs::<TokenGradient>(&gradients)?,
        dvalues: &dvalues,
        partials: &partials,
        metrics: &metrics,
        kl_control: &Tensor::from_slice(gpu, "kl control", &[1], &[control])?,
        counts: shape.live.map(|_| &counts),
    };
    ppo_loss(&mut trial.plan, &io, &options)?;

    let live = shape.live.unwrap_or(n);
    let targets: Vec<_> = (0..live).map(|i| target(&inputs, i)).collect();
    let options = wide(&options);
    let expected = reference::ppo_loss(&targets, &options);
    let both = expected.dlogprobs.iter().zip(&expected.dentropies);
    let both: Vec<f64> = both.flat_map(|(&a, &b)| [a, b]).collect();
    expect_start(&mut trial, &gradients, both, BOUND)?;
    expect_start(&mut trial, &dvalues, expected.dvalues, BOUND)?;
    let part = |target: &reference::PpoTarget| {
        reference::ppo_loss(std::slice::from_ref(target), &options).metrics
    };
    let parts: Vec<_> = targets.iter().map(part).collect();
    let slot = shape.live.map_or(0, |_| SLOT);
    let row = policy_row(&expected.metrics, &parts);
    expect_row(&mut trial, &metrics, slot, &row)?;
    Ok(trial)
}

fn target(inputs: &Inputs, i: usize) -> reference::PpoTarget {
    let (now, old) = (&inputs.logprobs[i], &inputs.experience[i]);
    reference::PpoTarget {
        logprob: now.logprob.into(),
        entropy: now.entropy.into(),
        value: inputs.values[i].into(),
        old_logprob: old.logprob.into(),
        ref_logprob: old.ref_logprob.into(),
        old_value: old.value.into(),
        advantage: old.advantage.into(),
        returns: old.returns.into(),
        weight: old.weight.into(),
    }
}

fn wide(options: &PpoLossOptions) -> reference::PpoLossOptions {
    reference::PpoLossOptions {
        clip_range: options.clip_range.into(),
        clip_range_value: options.clip_range_value.map(f64::from),
        vf_coef: options.vf_coef.into(),
        entropy_coef: options.entropy_coef.into(),
        kl_in_loss: options.kl_in_loss.map(|kl| (kl, KL_COEF.into())),
        target_scale: options.target_scale.into(),
        value_scale: options.value_scale.into(),
    }
}
