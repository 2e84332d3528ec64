//! What cannot be trained on is refused by name, and changes nothing.

use prefgrad::model::ModelConfig;
use prefgrad::train::{
    GrpoOptions, GrpoTrainer, KlOptions, PpoOptions, PpoTrainer, RolloutOptions, Sample,
};
use prefgrad::{Error, Result};

use crate::policy_tools::{
    ALGORITHMS, Recorder, bits, config, hash, ppo, prompts, rollout, trainer,
};
use crate::tools::gpu;

/// What both trainers say of prompts and options.
fn refusals(
    config: &ModelConfig,
    change: impl Fn(&mut RolloutOptions),
    prompts: &[Vec<u32>],
) -> [String; 2] {
    let mut rollout = rollout();
    change(&mut rollout);
    let options = PpoOptions {
        rollout: rollout.clone(),
        ..PpoOptions::default()
    };
    let ppo = PpoTrainer::new(gpu(), config, options, prompts.to_vec());
    let options = GrpoOptions {
        rollout,
        ..GrpoOptions::default()
    };
    let grpo = GrpoTrainer::new(gpu(), config, options, prompts.to_vec());
    [ppo.err(), grpo.err()].map(|error| error.expect("an error").to_string())
}

#[track_caller]
fn refused(wanted: &[&str], change: impl Fn(&mut RolloutOptions), prompts: &[Vec<u32>]) {
    for error in refusals(&config(true), change, prompts) {
        for part in wanted {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn prompts_that_cannot_be_answered_are_refused_by_number() {
    let same = |_: &mut RolloutOptions| {};
    refused(&["prompts", "none"], same, &[]);
    refused(&["prompt 2", "no tokens"], same, &[vec![3], vec![]]);
    // 18 and an answer of 6 fill the context of 24.
    refused(&["prompt 1", "context of 24"], same, &[vec![3; 19]]);
    refused(&["prompt 1", "vocabulary of 21"], same, &[vec![3, 21]]);
}

#[test]
fn a_prompt_that_just_fits_is_answered() {
    let options = PpoOptions {
        rollout: RolloutOptions {
            stop_tokens: vec![],
            ..rollout()
        },
        ..PpoOptions::default()
    };
    let mut trainer = PpoTrainer::new(gpu(), &config(true), options, vec![vec![3; 18]]).unwrap();
    trainer.start().unwrap();
    let mut reward = Recorder::new(hash);
    let (step, _) = trainer.step(&mut reward).unwrap();
    assert_eq!(step.length, 6.0);
    // One prompt serves every group of the rollout, with other answers.
    assert_eq!(step.responses, 15);
    assert_ne!(reward.seen[0].answer, reward.seen[3].answer);
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let all = prompts();
    refused(&["temperature"], |o| o.temperature = f32::NAN, &all);
    refused(&["top_p"], |o| o.top_p = 0.0, &all);
    refused(&["minibatches"], |o| o.minibatches = 6, &all);
    refused(&["epochs"], |o| o.epochs = 0, &all);
    refused(&["stop_tokens", "21"], |o| o.stop_tokens = vec![21], &all);
    refused(&["batch_tokens", "samples"], |o| o.batch_tokens = 22, &all);
    refused(&["learning_rate"], |o| o.learning_rate = -1.0, &all);
    let eos = |o: &mut RolloutOptions| {
        o.missing_eos_penalty = 1.0;
        o.stop_tokens = vec![];
    };
    refused(&["missing_eos_penalty"], eos, &all);
    refused(&["kl.limit"], |o| o.kl.limit = Some(-1.0), &all);
}

#[test]
fn options_of_the_algorithms_are_refused_by_name() {
    let grpo = |change: fn(&mut GrpoOptions)| {
        let mut options = GrpoOptions {
            rollout: rollout(),
            ..GrpoOptions::default()
        };
        change(&mut options);
        let trainer = GrpoTrainer::new(gpu(), &config(true), options, prompts());
        trainer.err().expect("an error").to_string()
    };
    let error = grpo(|o| o.rollout.samples = 1);
    assert!(error.contains("samples is 1"), "{error}");
    let error = grpo(|o| {
        o.rollout.kl = KlOptions {
            target: Some(6.0),
            ..KlOptions::default()
        };
    });
    assert!(error.contains("kl.target"), "{error}");
    assert!(grpo(|o| o.delta = Some(1.1)).contains("delta"));
    assert!(grpo(|o| o.clip_low = f32::NAN).contains("clip_low"));
    let ppo = |change: fn(&mut PpoOptions)| {
        let mut options = PpoOptions {
            rollout: rollout(),
            ..PpoOptions::default()
        };
        change(&mut options);
        let trainer = PpoTrainer::new(gpu(), &config(true), options, prompts());
        trainer.err().expect("an error").to_string()
    };
    assert!(ppo(|o| o.gamma = 1.5).contains("gamma"));
    assert!(ppo(|o| o.lambda = -0.1).contains("lambda"));
    assert!(ppo(|o| o.clip_range = -0.2).contains("clip_range"));
    assert!(ppo(|o| o.vf_coef = f32::NAN).contains("vf_coef"));
}

#[test]
fn a_run_without_a_reference_does_not_start() {
    let options = PpoOptions {
        rollout: rollout(),
        ..PpoOptions::default()
    };
    let mut trainer = PpoTrainer::new(gpu(), &config(true), options, prompts()).unwrap();
    let error = trainer.step(&mut Recorder::new(hash)).unwrap_err();
    assert!(error.to_string().contains("call start"), "{error}");
}

#[test]
fn a_reward_that_is_none_changes_nothing() {
    for algorithm in ALGORITHMS {
        let mut trainer = trainer(algorithm, rollout());
        trainer.step(&mut Recorder::new(hash)).unwrap();
        let before = bits(trainer.policy().parameters());
        let mut short = |samples: &[Sample<'_>]| Ok(vec![0.0; samples.len() - 1]);
        let error = trainer.step(&mut short).unwrap_err();
        assert!(error.to_string().contains("14 rewards for 15"), "{error}");
        let mut broken = |samples: &[Sample<'_>]| {
            let mut rewards = vec![0.0; samples.len()];
            rewards[4] = f32::NAN;
            Ok(rewards)
        };
        let error = trainer.step(&mut broken).unwrap_err();
        let Error::NonFinite {
            what,
            step,
            records,
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((what, step, records), ("reward", 2, vec![5]));
        let mut failing = |_: &[Sample<'_>]| -> Result<Vec<f32>> {
            Err(Error::Data {
                place: "judge".into(),
                detail: "it is on holiday".into(),
            })
        };
        let error = trainer.step(&mut failing).unwrap_err();
        assert!(error.to_string().contains("holiday"), "{error}");
        assert_eq!(bits(trainer.policy().parameters()), before, "{algorithm}");
        // The run goes on with a reward that is one.
        let (step, _) = trainer.step(&mut Recorder::new(hash)).unwrap();
        assert_eq!(step.rollout, 2);
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_once() {
    let mut trainer = ppo(PpoOptions {
        rollout: rollout(),
        ..PpoOptions::default()
    });
    let parameters = trainer.policy().parameters();
    let head = parameters.read_weights(gpu()).unwrap();
    let (spec, values) = head
        .into_iter()
        .find(|(spec, _)| spec.name == "value_head.weight")
        .unwrap();
    let name = spec.name.clone();
    let broken = vec![f32::NAN; values.len()];
    parameters.write(gpu(), &name, &broken).unwrap();
    let before = bits(parameters);
    let error = trainer.step(&mut Recorder::new(hash)).unwrap_err();
    assert!(error.to_string().contains("loss"), "{error}");
    let parameters = trainer.policy().parameters();
    assert_eq!(bits(parameters), before, "nothing was learnt from it");
    // With the head mended, the run goes on.
    parameters.write(gpu(), &name, &values).unwrap();
    trainer.step(&mut Recorder::new(hash)).unwrap();
}
