//! Advantages of tokens: PyTorch's figures, TRL's whole treatment of a rollout, extremes, the same
//! bits twice, and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{Counts, RowList, Target};
use prefgrad::kernels::policy::experience::{ExperienceIo, experience};
use prefgrad::kernels::policy::gae::{GaeIo, GaeOptions, gae};
use prefgrad::kernels::policy::whiten::{WhitenIo, WhitenOptions, partial_rows, whiten};
use prefgrad::kernels::policy::{Experience, KlControl, KlEstimator, Response, TokenLogprob};
use prefgrad::{Error, Plan, Tensor};

use crate::gpu::gpu;
use crate::support::golden::{Case, cases};
use crate::tools::{assert_values, bits};

/// Responses whose entries lie where `lists` says.
pub struct Setup {
    answer_lists: Tensor,
    answer_rows: Tensor,
    experience: Tensor,
    responses: Tensor,
    kl_control: Tensor,
}

impl Setup {
    pub fn new(
        lists: &[RowList],
        rows: &[u32],
        experience: &[Experience],
        scores: &[f32],
        kl_coef: f32,
    ) -> Self {
        let responses: Vec<Response> = scores
            .iter()
            .map(|&score| Response {
                score,
                ..Response::default()
            })
            .collect();
        let control = KlControl {
            kl_coef,
            ..KlControl::default()
        };
        Self {
            answer_lists: upload("answer_lists", lists),
            answer_rows: upload("answer_rows", rows),
            experience: upload("experience", experience),
            responses: upload("responses", &responses),
            kl_control: upload("kl_control", &[control]),
        }
    }

    fn io(&self) -> GaeIo<'_> {
        GaeIo {
            answer_lists: &self.answer_lists,
            answer_rows: &self.answer_rows,
            experience: &self.experience,
            responses: &self.responses,
            kl_control: &self.kl_control,
            counts: None,
        }
    }

    pub fn run(&self, options: &GaeOptions) -> Vec<Experience> {
        let mut plan = Plan::new(gpu());
        gae(&mut plan, &self.io(), options).unwrap();
        plan.submit();
        self.experience.read(gpu()).unwrap()
    }
}

fn upload<T: prefgrad::Element>(label: &str, values: &[T]) -> Tensor {
    Tensor::from_slice(gpu(), label, &[values.len()], values).unwrap()
}

/// Lists of these entries, one after another.
fn lists_of(responses: &[Vec<usize>]) -> (Vec<RowList>, Vec<u32>) {
    let mut rows = Vec::new();
    let mut lists = Vec::new();
    for (id, entries) in (0..).zip(responses) {
        let start = rows.len() as u32;
        rows.extend(entries.iter().map(|&n| n as u32));
        lists.push(RowList {
            id,
            start,
            end: rows.len() as u32,
            pad: 0,
        });
    }
    (lists, rows)
}

fn options_of(case: &Case, lambda: &str) -> GaeOptions {
    GaeOptions {
        gamma: case.number("gamma") as f32,
        lambda: case.number(lambda) as f32,
        kl_estimator: KlEstimator::K1,
    }
}

/// A masked entry is in no list; a `done` ends a list, and the steps behind it are another. What
/// PyTorch's form takes as the value behind the last step comes as a score.
#[test]
fn equals_pytorch() {
    for case in cases("gae", "") {
        let [rewards, values, mask, dones, last_value] =
            ["rewards", "values", "mask", "dones", "last_value"].map(|name| case.input(name).f32());
        let steps = rewards.len() / last_value.len();
        let options = options_of(&case, "lam");
        let mut responses = Vec::new();
        let mut scores = Vec::new();
        for (b, &last_value) in last_value.iter().enumerate() {
            let valid: Vec<usize> = (b * steps..(b + 1) * steps)
                .filter(|&n| mask[n] > 0.0)
                .collect();
            for episode in valid.split_inclusive(|&n| dones[n] > 0.0) {
                let ended = episode.last().is_some_and(|&n| dones[n] > 0.0);
                let goes_on = episode.last() != valid.last();
                responses.push(episode.to_vec());
                scores.push(match ended || goes_on {
                    true => 0.0,
                    false => options.gamma * last_value,
                });
            }
        }
        // With K1, a factor of 1 and a reference of 0 the penalty is the log-probability.
        let tokens: Vec<Experience> = (0..rewards.len())
            .map(|n| Experience {
                logprob: -rewards[n],
                value: values[n],
                weight: 1.0,
                ..Experience::default()
            })
            .collect();
        let (lists, mut rows) = lists_of(&responses);
        rows.resize(tokens.len(), u32::MAX);
        let out = Setup::new(&lists, &rows, &tokens, &scores, 1.0).run(&options);
        let advantages: Vec<f32> = out.iter().map(|e| e.advantage).collect();
        let returns: Vec<f32> = out.iter().map(|e| e.returns).collect();
        assert_values(&case.name, &advantages, &case.output("advantages").f64());
        assert_values(&case.name, &returns, &case.output("returns").f64());
    }
}

/// One case of TRL's treatment of a rollout: each response has its real tokens and, where it ended
/// early, one more entry of weight 0 that takes the score.
struct Trl {
    case: Case,
    steps: usize,
    /// Entries of each response by their index in TRL's grid, and how many of them are real.
    responses: Vec<(Vec<usize>, usize)>,
}

impl Trl {
    fn new(case: Case) -> Self {
        let last = case.input("seq_len").u32();
        let steps = case.input("logprobs").shape[1];
        let responses = last
            .iter()
            .enumerate()
            .map(|(b, &last)| {
                let real = last as usize + 1;
                let entries = (b * steps..).take(steps.min(real + 1));
                (entries.collect(), real)
            })
            .collect();
        Self {
            case,
            steps,
            responses,
        }
    }

    fn run(&self) -> (Vec<Experience>, Vec<Experience>, Vec<Response>) {
        let input = |name: &str| self.case.input(name).f32();
        let n = self.responses.len() * self.steps;
        let logprobs = |name: &str| {
            let logprob = |&logprob| TokenLogprob {
                logprob,
                ..TokenLogprob::default()
            };
            let all: Vec<_> = input(name).iter().map(logprob).collect();
            upload(name, &all)
        };
        let mut targets = vec![Target::default(); n];
        for (entries, real) in &self.responses {
            entries[..*real]
                .iter()
                .for_each(|&n| targets[n].weight = 1.0);
        }
        let kl_coef = self.case.number("kl_coef") as f32;
        let entries: Vec<_> = self.responses.iter().map(|r| r.0.clone()).collect();
        let (lists, mut rows) = lists_of(&entries);
        rows.resize(n, u32::MAX);
        let nothing = vec![Experience::default(); n];
        let setup = Setup::new(&lists, &rows, &nothing, &input("scores"), kl_coef);
        let targets = upload("targets", &targets);
        let own = logprobs("logprobs");
        let reference = logprobs("ref_logprobs");
        let values = upload("values", &input("values"));
        let io = ExperienceIo {
            answer_lists: &setup.answer_lists,
            answer_rows: &setup.answer_rows,
            targets: &targets,
            logprobs: &own,
            ref_logprobs: Some(&reference),
            values: Some(&values),
            experience: &setup.experience,
            responses: &setup.responses,
            counts: None,
        };
        let mut plan = Plan::new(gpu());
        experience(&mut plan, &io).unwrap();
        plan.submit();
        let options = GaeOptions {
            kl_estimator: match self.case.name.contains("k3") {
                true => KlEstimator::K3,
                false => KlEstimator::K1,
            },
            ..options_of(&self.case, "lam")
        };
        let raw = setup.run(&options);
        let io = WhitenIo {
            experience: &setup.experience.reshape(&[1, n]).unwrap(),
            lens: &upload("lens", &[n as u32]),
            partials: &Tensor::zeros::<f32>(gpu(), "partials", &[partial_rows(1, n), 4]).unwrap(),
        };
        let mut plan = Plan::new(gpu());
        whiten(&mut plan, &io, &WhitenOptions::default()).unwrap();
        plan.submit();
        let whitened = setup.experience.read(gpu()).unwrap();
        (raw, whitened, setup.responses.read(gpu()).unwrap())
    }
}

/// Rewards are not whitened by any kernel, so the case that does is left out.
#[test]
fn treats_a_rollout_as_trl_does() {
    let mut compared = 0;
    for case in cases("ppo_rollout_trl", "") {
        if case.name.ends_with("_w1") {
            println!("left out: {} whitens rewards", case.name);
            continue;
        }
        let trl = Trl::new(case);
        let case = &trl.case;
        let (raw, whitened, responses) = trl.run();
        let all = |of: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..raw.len()).map(of).collect() };
        // Past the entries TRL's own values are 0.
        assert_values(
            &case.name,
            &all(&|n| raw[n].advantage),
            &case.output("adv_raw").f64(),
        );
        assert_values(
            &case.name,
            &all(&|n| raw[n].returns),
            &case.output("returns").f64(),
        );
        assert_values(
            &case.name,
            &all(&|n| whitened[n].advantage),
            &case.output("advantages").f64(),
        );
        let mean = |of: &dyn Fn(&Response) -> f32| {
            responses.iter().map(of).sum::<f32>() / responses.len() as f32
        };
        let entropy = case.output("objective_entropy").f64();
        assert_values(&case.name, &[mean(&|r| r.surprisal)], &entropy);
        if case.name.contains("k1") {
            let kl = case.output("objective_kl").f64();
            assert_values(&case.name, &[mean(&|r| r.kl)], &kl);
            let coef = case.number("kl_coef") as f32;
            let total = [mean(&|r| r.score - coef * r.kl)];
            let expected = case.output("objective_rlhf_reward").f64();
            assert_values(&case.name, &total, &expected);
        }
        compared += 1;
    }
    assert_eq!(compared, 3);
}

#[test]
fn distances_of_any_size_stay_finite() {
    let tokens: Vec<Experience> = [0.0, 1e-3, 60.0, 100.0, 1e4, -1e4]
        .into_iter()
        .map(|distance| Experience {
            logprob: -distance,
            weight: 1.0,
            ..Experience::default()
        })
        .collect();
    let (lists, rows) = lists_of(&[(0..tokens.len()).collect()]);
    for kl_estimator in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
        let options = GaeOptions {
            kl_estimator,
            ..GaeOptions::default()
        };
        let out = Setup::new(&lists, &rows, &tokens, &[1.0], 0.5).run(&options);
        assert!(out.iter().all(|e| e.advantage.is_finite()), "{out:?}");
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let n = 3000;
    let tokens: Vec<Experience> = values(1, n, 2.0)
        .into_iter()
        .map(|value| Experience {
            value,
            logprob: -value,
            weight: 1.0,
            ..Experience::default()
        })
        .collect();
    let (lists, rows) = lists_of(&[(0..1000).collect(), (1000..n).collect()]);
    let setup = Setup::new(&lists, &rows, &tokens, &[1.0, 2.0], 0.5);
    let words = setup.experience.buffer().clone();
    let words = Tensor::from_buffer::<f32>("words", words, 0, &[8 * n]).unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            setup.run(&GaeOptions::default());
            bits(gpu(), &words)
        })
        .collect();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (lists, rows) = lists_of(&[vec![0, 1]]);
    let setup = Setup::new(&lists, &rows, &[Experience::default(); 2], &[1.0], 0.5);
    let mut plan = Plan::new(gpu());
    let mut refused = |io: &GaeIo<'_>, options: &GaeOptions, word: &str| {
        let error = gae(&mut plan, io, options).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let plain = GaeOptions::default();
    let short = upload("short", &[Experience::default()]);
    let io = GaeIo {
        experience: &short,
        ..setup.io()
    };
    refused(&io, &plain, "short");
    let io = GaeIo {
        kl_control: &setup.responses,
        ..setup.io()
    };
    refused(&io, &plain, "KlControl");
    let io = GaeIo {
        answer_lists: &setup.answer_rows,
        ..setup.io()
    };
    refused(&io, &plain, "RowList");
    for gamma in [-0.1, 1.5, f32::NAN] {
        refused(&setup.io(), &GaeOptions { gamma, ..plain }, "gamma");
    }
    let lambda = f32::INFINITY;
    refused(&setup.io(), &GaeOptions { lambda, ..plain }, "lambda");
    let long = Tensor::zeros::<u32>(gpu(), "long", &[1_920_001]).unwrap();
    let io = GaeIo {
        answer_rows: &long,
        ..setup.io()
    };
    refused(&io, &plain, "1920000");
    let counts = Tensor::zeros::<Counts>(gpu(), "counts", &[2]).unwrap();
    let io = GaeIo {
        counts: Some(&counts),
        ..setup.io()
    };
    refused(&io, &plain, "64");
    assert!(plan.is_empty());
}
