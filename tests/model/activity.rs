//! What a training step asks of the device: submissions, and nothing that is made anew.

use prefgrad::train::{
    DpoOptions, DpoTrainer, PpoOptions, PpoTrainer, RewardOptions, RewardTrainer, SftOptions,
    SftTrainer, TuningOptions,
};
use prefgrad::{Activity, Gpu, Result};

use crate::policy_tools::{Recorder, Trainer, config, hash, prompts, rollout};
use crate::tools::pair;

/// Makes `STEPS` updates and holds what they asked for against `submissions` an update, after two
/// for whatever the first use of something may make; its pipelines are there before.
const STEPS: u64 = 4;

fn watch(name: &str, gpu: &Gpu, submissions: u64, mut step: impl FnMut() -> Result<bool>) {
    let compiled = gpu.activity().pipelines;
    for _ in 0..2 {
        step().unwrap();
    }
    let before = gpu.activity();
    assert_eq!(before.pipelines, compiled, "{name} did not wait");
    assert!(before.bind_groups > 0 && before.pipelines > 0 && before.buffers > 0);
    for _ in 0..STEPS {
        assert!(!step().unwrap(), "{name} read its metrics too early");
    }
    let expected = Activity {
        submissions: before.submissions + STEPS * submissions,
        ..before
    };
    assert_eq!(gpu.activity(), expected, "{name}");
}

#[test]
fn updates_make_nothing_and_read_nothing() {
    let records: Vec<_> = (0..8u32)
        .map(|i| pair(&[3, i + 5, 4], &[9, 7, 1], &[6, i + 2, 8, 1]))
        .collect();
    let tuning = || TuningOptions {
        batch_tokens: 256,
        steps: 100,
        read_every: 50,
        evaluate_every: 0,
        ..TuningOptions::default()
    };
    let gpu = Gpu::new().unwrap();
    let options = RewardOptions {
        batch_tokens: 256,
        steps: 100,
        read_every: 50,
        evaluate_every: 0,
        ..RewardOptions::default()
    };
    let mut reward =
        RewardTrainer::new(&gpu, &config(true), options, records.clone(), vec![]).unwrap();
    // The gradients' submission and the optimiser's.
    watch("reward", &gpu, 2, || Ok(reward.step()?.is_some()));
    let options = DpoOptions {
        tuning: tuning(),
        ..DpoOptions::default()
    };
    let mut dpo = DpoTrainer::new(&gpu, &config(true), options, &records, &[]).unwrap();
    watch("dpo", &gpu, 2, || Ok(dpo.step()?.is_some()));
    let options = SftOptions {
        tuning: tuning(),
        ..SftOptions::default()
    };
    let mut sft = SftTrainer::new(&gpu, &config(true), options, &records, &[]).unwrap();
    watch("sft", &gpu, 2, || Ok(sft.step()?.is_some()));
}

#[test]
fn rollouts_make_nothing_anew() {
    let gpu = Gpu::new().unwrap();
    let options = PpoOptions {
        rollout: rollout(),
        ..PpoOptions::default()
    };
    let mut trainer = PpoTrainer::new(&gpu, &config(true), options, prompts()).unwrap();
    let compiled = gpu.activity().pipelines;
    let values = trainer.value_parameters();
    for parameters in [Some(trainer.policy().parameters()), values]
        .into_iter()
        .flatten()
    {
        parameters.initialise(&gpu, 0).unwrap();
    }
    trainer.start().unwrap();
    trainer.step(&mut Recorder::new(hash)).unwrap();
    let before = gpu.activity();
    assert_eq!(before.pipelines, compiled, "the trainer did not wait");
    trainer.step(&mut Recorder::new(hash)).unwrap();
    let after = gpu.activity();
    // Answers and metrics are read, a few times a rollout.
    assert!(after.readbacks > before.readbacks && after.submissions > before.submissions);
    let made = |activity: Activity| Activity {
        readbacks: 0,
        submissions: 0,
        ..activity
    };
    assert_eq!(made(after), made(before));
}
