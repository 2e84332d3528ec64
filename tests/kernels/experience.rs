//! What is remembered of sampled tokens: without a reference or values, through packed batches,
//! the same bits twice, and what is refused.

use prefgrad::check::values;
use prefgrad::data::batch::{NONE, RowList, Target};
use prefgrad::kernels::policy::experience::{ExperienceIo, experience};
use prefgrad::kernels::policy::{Experience, Response, TokenLogprob};
use prefgrad::{Element, Plan, Tensor};

use crate::gpu::gpu;
use crate::tools::bits;

struct Setup {
    answer_lists: Tensor,
    answer_rows: Tensor,
    targets: Tensor,
    logprobs: Tensor,
    experience: Tensor,
    responses: Tensor,
}

fn upload<T: Element>(label: &str, values: &[T]) -> Tensor {
    Tensor::from_slice(gpu(), label, &[values.len()], values).unwrap()
}

impl Setup {
    /// One response of all targets but the first, which is a prompt's.
    fn new(logprobs: &[f32]) -> Self {
        let n = logprobs.len();
        let target = |answer| Target {
            answer,
            weight: 2.0,
            ..Target::default()
        };
        let mut targets = vec![target(0); n];
        targets[0] = target(NONE);
        let mut rows: Vec<u32> = (1..n as u32).collect();
        rows.push(NONE);
        let list = RowList {
            end: n as u32 - 1,
            ..RowList::default()
        };
        let logprob = |&logprob| TokenLogprob {
            logprob,
            ..TokenLogprob::default()
        };
        let logprobs: Vec<_> = logprobs.iter().map(logprob).collect();
        Self {
            answer_lists: upload("answer_lists", &[list]),
            answer_rows: upload("answer_rows", &rows),
            targets: upload("targets", &targets),
            logprobs: upload("logprobs", &logprobs),
            experience: upload("experience", &vec![Experience::default(); n]),
            responses: upload("responses", &[Response::default()]),
        }
    }

    fn io(&self) -> ExperienceIo<'_> {
        ExperienceIo {
            answer_lists: &self.answer_lists,
            answer_rows: &self.answer_rows,
            targets: &self.targets,
            logprobs: &self.logprobs,
            ref_logprobs: None,
            values: None,
            experience: &self.experience,
            responses: &self.responses,
            counts: None,
        }
    }
}

#[test]
fn a_prompt_weighs_nothing_and_without_a_reference_nothing_diverges() {
    let setup = Setup::new(&[-3.0, -1.0, -0.5, -0.25]);
    let mut plan = Plan::new(gpu());
    experience(&mut plan, &setup.io()).unwrap();
    plan.submit();
    let out: Vec<Experience> = setup.experience.read(gpu()).unwrap();
    let weights: Vec<f32> = out.iter().map(|e| e.weight).collect();
    assert_eq!(weights, [0.0, 2.0, 2.0, 2.0]);
    assert!(out.iter().all(|e| e.logprob == e.ref_logprob));
    let responses: Vec<Response> = setup.responses.read(gpu()).unwrap();
    assert_eq!((responses[0].kl, responses[0].surprisal), (0.0, 1.75));
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let setup = Setup::new(&values(1, 5000, 3.0));
    let words = setup.responses.buffer().clone();
    let words = Tensor::from_buffer::<f32>("words", words, 0, &[8]).unwrap();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let mut plan = Plan::new(gpu());
            experience(&mut plan, &setup.io()).unwrap();
            plan.submit();
            bits(gpu(), &words)
        })
        .collect();
    assert!(runs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let setup = Setup::new(&[-1.0; 4]);
    let mut plan = Plan::new(gpu());
    let mut refused = |io: &ExperienceIo<'_>, word: &str| {
        let error = experience(&mut plan, io).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    };
    let short = upload("short", &[TokenLogprob::default(); 3]);
    let io = setup.io();
    refused(
        &ExperienceIo {
            ref_logprobs: Some(&short),
            ..io
        },
        "short",
    );
    refused(
        &ExperienceIo {
            values: Some(&short),
            ..io
        },
        "f32",
    );
    refused(
        &ExperienceIo {
            responses: &setup.experience,
            ..io
        },
        "Response",
    );
    refused(
        &ExperienceIo {
            targets: &setup.logprobs,
            ..io
        },
        "Target",
    );
    let long = Tensor::zeros::<u32>(gpu(), "long", &[1_920_001]).unwrap();
    refused(
        &ExperienceIo {
            answer_rows: &long,
            ..io
        },
        "1920000",
    );
    assert!(plan.is_empty());
}
