//! The losses of GRPO, GSPO and RLOO against PyTorch's figures.

use prefgrad::kernels::policy::Experience;
use prefgrad::kernels::policy::grpo_loss::{GrpoLossOptions, GrpoLossType, RatioLevel};

use crate::grpo_loss::{Setup, token};
use crate::policy::{assert_figure, assert_golden, logprobs};
use crate::support::golden::{Case, cases};

/// The real tokens of a right-padded case, response by response.
struct Entries {
    lengths: Vec<usize>,
    /// Indices of real tokens in the case's arrays.
    index: Vec<usize>,
}

impl Entries {
    fn new(case: &Case) -> Self {
        let mask = case.input("mask");
        let width = mask.shape[1];
        let mask = mask.f32();
        let length = |row: &[f32]| row.iter().filter(|&&m| m != 0.0).count();
        Self {
            lengths: mask.chunks(width).map(length).collect(),
            index: (0..mask.len()).filter(|&i| mask[i] != 0.0).collect(),
        }
    }

    fn pick(&self, values: &[f32]) -> Vec<f32> {
        self.index.iter().map(|&i| values[i]).collect()
    }

    /// Values of the tokens at their places among all, zero elsewhere.
    fn spread(&self, values: &[f32], len: usize) -> Vec<f64> {
        let mut all = vec![0.0; len];
        for (&i, &value) in self.index.iter().zip(values) {
            all[i] = f64::from(value);
        }
        all
    }
}

/// The averaging in a case's name.
fn loss_type(case: &Case) -> GrpoLossType {
    match case.name.split('_').next() {
        Some("bnpo") => GrpoLossType::Bnpo,
        Some("dr") => GrpoLossType::DrGrpo,
        Some("dapo") => GrpoLossType::Dapo,
        _ => GrpoLossType::Grpo,
    }
}

fn golden_options(case: &Case, entries: &Entries) -> GrpoLossOptions {
    let loss_type = loss_type(case);
    // The items of these cases' step include some of other batches.
    let tokens = match loss_type {
        GrpoLossType::Dapo => case.number("num_items_in_batch") as usize,
        _ => entries.index.len(),
    };
    let longest = case.number("max_completion_length") as usize;
    GrpoLossOptions {
        clip_low: case.number("eps_low") as f32,
        clip_high: case.number("eps_high") as f32,
        delta: case.attribute("delta").map(|delta| delta as f32),
        beta: case.number("beta") as f32,
        kl_bias_correction: case.name.contains("_bc1_"),
        level: if case.name.contains("_sequence_") {
            RatioLevel::SequenceMean
        } else {
            RatioLevel::Token
        },
        target_scale: loss_type.target_scale(entries.lengths.len(), tokens, longest),
    }
}

#[test]
fn equals_pytorch() {
    let all = cases("grpo_loss", "");
    assert_eq!(all.len(), 64);
    for case in all {
        let entries = Entries::new(&case);
        let input = |name: &str| case.input(name).f32();
        let [new, old, reference] =
            ["logp", "old_logp", "ref_logp"].map(|name| entries.pick(&input(name)));
        let kind = loss_type(&case);
        let weights = entries
            .lengths
            .iter()
            .flat_map(|&len| vec![kind.target_weight(len); len]);
        let experience: Vec<Experience> = weights
            .enumerate()
            .map(|(i, weight)| token(old[i], reference[i], weight))
            .collect();
        let setup = Setup::new(
            &entries.lengths,
            &logprobs(&new),
            &experience,
            &input("adv"),
        );
        let out = setup.run(&golden_options(&case, &entries), None);
        let expected = case.gradient("logp").f64();
        let dlogprobs = entries.spread(&out.dlogprobs, expected.len());
        assert_golden(&case, "grad.logp", &dlogprobs, &expected);
        let metrics = out.metrics();
        for (name, value) in [
            ("loss", metrics.loss),
            ("mean_kl", metrics.kl / metrics.tokens),
            ("clip_low", metrics.clip_low / metrics.tokens),
            ("clip_high", metrics.clip_high / metrics.tokens),
        ] {
            assert_figure(&case, name, value);
        }
        assert_eq!(metrics.tokens, entries.index.len() as f64);
        assert_eq!((metrics.non_finite, metrics.held), (0.0, 0.0));
    }
}

#[test]
fn rloo_equals_pytorch() {
    for case in cases("rloo_loss", "") {
        let entries = Entries::new(&case);
        let new = entries.pick(&case.input("logp").f32());
        let sums = case.input("old_seq").f32();
        // Only the sum over the old log-probabilities is known: the first token has it all.
        let mut experience = Vec::new();
        for (&len, &sum) in entries.lengths.iter().zip(&sums) {
            let weight = GrpoLossType::Grpo.target_weight(len);
            experience.push(token(sum, 0.0, weight));
            experience.resize(experience.len() + len - 1, token(0.0, 0.0, weight));
        }
        let advantages = case.input("adv").f32();
        let setup = Setup::new(&entries.lengths, &logprobs(&new), &experience, &advantages);
        let options = GrpoLossOptions {
            clip_low: case.number("eps_low") as f32,
            clip_high: case.number("eps_high") as f32,
            level: RatioLevel::SequenceSum,
            target_scale: GrpoLossType::Grpo.target_scale(sums.len(), 0, 0),
            ..GrpoLossOptions::default()
        };
        let out = setup.run(&options, None);
        let expected = case.gradient("logp").f64();
        let dlogprobs = entries.spread(&out.dlogprobs, expected.len());
        assert_golden(&case, "grad.logp", &dlogprobs, &expected);
        assert_figure(&case, "loss", out.metrics().loss);
    }
}
