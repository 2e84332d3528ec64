//! PPO's loss against PyTorch's figures.

use prefgrad::kernels::policy::metrics::LARGEST_RATIO;
use prefgrad::kernels::policy::ppo_loss::PpoLossOptions;
use prefgrad::kernels::policy::{Experience, KlEstimator, PolicyMetrics, TokenLogprob};

use crate::policy::{assert_figure, assert_golden, dlogprobs, logprobs};
use crate::ppo_loss::{Setup, token};
use crate::support::golden::{Case, cases};

/// The estimator in a case's name.
fn estimator(case: &Case) -> KlEstimator {
    [("k2", KlEstimator::K2), ("k3", KlEstimator::K3)]
        .into_iter()
        .find(|(name, _)| case.name.contains(name))
        .map_or(KlEstimator::K1, |(_, estimator)| estimator)
}

/// A case's real entries: those with a value loss, by their indices in its arrays.
struct Entries {
    index: Vec<usize>,
    setup: Setup,
    options: PpoLossOptions,
}

impl Entries {
    fn new(case: &Case, now: &[TokenLogprob]) -> Self {
        let input = |name: &str| case.input(name).f32();
        let (mask, value_mask) = (input("mask"), input("vmask"));
        let [old, reference, advantage, returns, old_value, value] =
            ["old_logp", "ref_logp", "adv", "ret", "old_v", "new_v"].map(input);
        let index: Vec<usize> = (0..mask.len()).filter(|&i| value_mask[i] != 0.0).collect();
        let experience: Vec<Experience> = index
            .iter()
            .map(|&i| Experience {
                logprob: old[i],
                ref_logprob: reference[i],
                value: old_value[i],
                advantage: advantage[i],
                returns: returns[i],
                weight: mask[i],
                pad: [0; 2],
            })
            .collect();
        let pick = |all: &[f32]| -> Vec<f32> { index.iter().map(|&i| all[i]).collect() };
        let now: Vec<TokenLogprob> = index.iter().map(|&i| now[i]).collect();
        let kl_coef = case.number("kl_coef") as f32;
        let options = PpoLossOptions {
            clip_range: case.number("clip") as f32,
            clip_range_value: Some(case.number("vclip") as f32),
            vf_coef: case.number("vf_coef") as f32,
            entropy_coef: case.number("ent_coef") as f32,
            kl_in_loss: (kl_coef != 0.0).then(|| estimator(case)),
            target_scale: 1.0 / mask.iter().sum::<f32>().max(1.0),
            value_scale: 1.0 / value_mask.iter().sum::<f32>().max(1.0),
        };
        let setup = Setup::new(&now, &experience, &pick(&value), kl_coef);
        Self {
            index,
            setup,
            options,
        }
    }

    /// Values of the entries at their places among all, zero elsewhere.
    fn spread(&self, values: &[f32], len: usize) -> Vec<f64> {
        let mut all = vec![0.0; len];
        for (&i, &value) in self.index.iter().zip(values) {
            all[i] = f64::from(value);
        }
        all
    }
}

fn check_figures(case: &Case, metrics: &PolicyMetrics) {
    let tokens = metrics.tokens.max(1.0);
    let places = case.input("mask").f32().len() as f64;
    let value_tokens = f64::from(case.input("vmask").f32().iter().sum::<f32>());
    for (name, value) in [
        ("loss", metrics.loss),
        ("pg_loss", metrics.policy_loss),
        ("vf_loss", metrics.value_loss),
        ("entropy", metrics.entropy / tokens),
        ("kl", metrics.kl / tokens),
        ("approx_kl_k1", metrics.approx_kl_k1 / tokens),
        ("approx_kl_k2", metrics.approx_kl_k2 / tokens),
        ("approx_kl_k3", metrics.approx_kl_k3 / tokens),
        ("approx_kl_trl_unmasked", metrics.approx_kl_k2 / places),
        ("clipfrac", (metrics.clip_low + metrics.clip_high) / tokens),
        ("vf_clipfrac", metrics.value_clip / value_tokens.max(1.0)),
        ("ratio_mean", metrics.ratio_sum() / tokens),
    ] {
        assert_figure(case, name, value);
    }
    let real: f32 = case.input("mask").f32().iter().sum();
    assert_eq!(metrics.tokens, f64::from(real), "{}", case.name);
    assert_eq!((metrics.non_finite, metrics.held), (0.0, 0.0));
}

#[test]
fn equals_pytorch() {
    for prefix in ["logp_", "large_ratio", "all_masked"] {
        for case in cases("ppo_loss", prefix) {
            let new = case.input("new_logp").f32();
            let entries = Entries::new(&case, &logprobs(&new));
            let out = entries.setup.run(&entries.options, None);
            let dlogprobs = entries.spread(&dlogprobs(&out.gradients), new.len());
            let dvalues = entries.spread(&out.dvalues, new.len());
            let expected = case.gradient("new_logp").f64();
            assert_golden(&case, "grad.new_logp", &dlogprobs, &expected);
            let expected = case.gradient("new_v").f64();
            assert_golden(&case, "grad.new_v", &dvalues, &expected);
            check_figures(&case, &out.metrics());
        }
    }
}

/// Log-probability and entropy of each token from logits at a temperature, and the gradient of the
/// logits from theirs.
struct Softmax {
    logits: Vec<f64>,
    tokens: Vec<u32>,
    temperature: f64,
}

impl Softmax {
    fn new(case: &Case) -> Self {
        let temperature = case.number("temperature");
        let scaled = case
            .input("logits")
            .f64()
            .into_iter()
            .map(|z| z / temperature);
        Self {
            logits: scaled.collect(),
            tokens: case.input("actions").u32(),
            temperature,
        }
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], usize)> {
        let vocabulary = self.logits.len() / self.tokens.len();
        let tokens = self.tokens.iter().map(|&token| token as usize);
        self.logits.chunks(vocabulary).zip(tokens)
    }

    fn log_softmax(row: &[f64]) -> Vec<f64> {
        let largest = row.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = row.iter().map(|z| (z - largest).exp()).sum();
        row.iter().map(|z| z - largest - sum.ln()).collect()
    }

    fn forward(&self) -> Vec<TokenLogprob> {
        let token = |(row, token): (&[f64], usize)| {
            let logs = Self::log_softmax(row);
            TokenLogprob {
                logprob: logs[token] as f32,
                entropy: -logs.iter().map(|log| log.exp() * log).sum::<f64>() as f32,
                ..TokenLogprob::default()
            }
        };
        self.rows().map(token).collect()
    }

    fn backward(&self, dlogprobs: &[f64], dentropies: &[f64]) -> Vec<f64> {
        let mut dlogits = Vec::with_capacity(self.logits.len());
        for (n, (row, token)) in self.rows().enumerate() {
            let logs = Self::log_softmax(row);
            let entropy = -logs.iter().map(|log| log.exp() * log).sum::<f64>();
            dlogits.extend(logs.iter().enumerate().map(|(j, log)| {
                let p = log.exp();
                let hit = f64::from(u8::from(j == token));
                let by_logprob = dlogprobs[n] * (hit - p);
                (by_logprob - dentropies[n] * p * (log + entropy)) / self.temperature
            }));
        }
        dlogits
    }
}

#[test]
fn equals_pytorch_through_logits() {
    for case in cases("ppo_loss", "logits_") {
        let softmax = Softmax::new(&case);
        let now = softmax.forward();
        let entries = Entries::new(&case, &now);
        let out = entries.setup.run(&entries.options, None);
        let dentropies: Vec<f32> = out.gradients.iter().map(|g| g.dentropy).collect();
        let dlogits = softmax.backward(
            &entries.spread(&dlogprobs(&out.gradients), now.len()),
            &entries.spread(&dentropies, now.len()),
        );
        let expected = case.gradient("logits").f64();
        assert_golden(&case, "grad.logits", &dlogits, &expected);
        let dvalues = entries.spread(&out.dvalues, now.len());
        let expected = case.gradient("new_v").f64();
        assert_golden(&case, "grad.new_v", &dvalues, &expected);
        check_figures(&case, &out.metrics());
    }
}

#[test]
fn a_ratio_beyond_f32_is_clipped_as_in_f64() {
    for case in cases("ppo_loss", "ratio_overflow_f32") {
        let [new, old, advantage] = ["new_logp", "old_logp", "adv"].map(|x| case.input(x).f32());
        let experience: Vec<Experience> = old
            .iter()
            .zip(&advantage)
            .map(|(&old, &advantage)| token(old, advantage))
            .collect();
        let setup = Setup::new(&logprobs(&new), &experience, &[0.0; 4], 0.0);
        let options = PpoLossOptions {
            target_scale: 0.25,
            ..PpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        let expected = case.gradient("new_logp").f64();
        assert_golden(
            &case,
            "grad.new_logp",
            &dlogprobs(&out.gradients),
            &expected,
        );
        assert_figure(&case, "pg_loss", out.metrics().policy_loss);
        assert_eq!(out.metrics().held, 2.0);
        let largest = out.metrics().ratio_max / f64::from(LARGEST_RATIO);
        assert!((largest - 1.0).abs() < 1e-5, "{largest}");
    }
}
