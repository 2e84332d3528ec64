//! A run that is killed goes on from its last checkpoint, to the same bits.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::run::{command, comparisons, small_training, succeed};

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.jsonl");
    comparisons(&data, 80);
    let data = data.to_str().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, broken) = (out("whole"), out("broken"));

    let printed = succeed("train_reward", &small_training(data, &whole));
    assert!(printed.contains("held-out accuracy"), "{printed}");

    let mut run = command("train_reward", &small_training(data, &broken))
        .spawn()
        .unwrap();
    wait_for_checkpoint(Path::new(&broken));
    // SIGKILL: the program gets no chance to tidy up.
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(
        !Path::new(&broken).join("model.safetensors").exists(),
        "killed too late to tell"
    );

    let mut arguments = small_training(data, &broken);
    arguments.push("--resume");
    let printed = succeed("train_reward", &arguments);
    assert!(printed.contains("resuming"), "{printed}");
    for name in ["model.safetensors", "metrics.jsonl", "report.json"] {
        let read = |folder: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
        assert!(read(&whole) == read(&broken), "{name} differs");
    }
    for name in ["config.json", "curves.png", "calibration.png"] {
        assert!(Path::new(&whole).join(name).exists(), "{name}");
    }
}

fn wait_for_checkpoint(folder: &Path) {
    let started = Instant::now();
    loop {
        let found = prefgrad::train::checkpoint::newest(folder).unwrap_or(None);
        if found.is_some() {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no checkpoint in two minutes"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
