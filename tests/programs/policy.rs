//! Training a policy, by every algorithm.

use std::path::Path;

use serde_json::Value;

use crate::models::{models, small_sft};
use crate::run::{command, fail, succeed};

const SAMPLED: &str = "--batch-tokens 512 --rollouts 3 --max-new-tokens 16 --learning-rate 1e-3 \
                       --judged 4 --shown 2";

/// Trains from the shared policy; what was printed.
fn train(algorithm: &str, out: &str, options: &str) -> String {
    let models = models();
    let (policy, data, out) = (
        models.path("sft"),
        models.path("data.jsonl"),
        models.path(out),
    );
    let reward = models.path("reward");
    let mut arguments = vec![
        "--algorithm",
        algorithm,
        "--policy",
        &policy,
        "--data",
        &data,
    ];
    arguments.extend(["--reward", &reward, "--out", &out]);
    arguments.extend(options.split_whitespace());
    succeed("train_policy", &arguments)
}

fn report(out: &str) -> Value {
    let path = Path::new(&models().path(out)).join("report.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn weights(out: &str) -> Vec<u8> {
    std::fs::read(Path::new(&models().path(out)).join("model.safetensors")).unwrap()
}

/// Everything is there, the weights have moved, and the model answers.
fn assert_whole(out: &str) {
    let folder = models().path(out);
    for name in [
        "config.json",
        "generation_config.json",
        "metrics.jsonl",
        "curves.png",
        "samples.jsonl",
        "report.json",
    ] {
        assert!(Path::new(&folder).join(name).exists(), "{out}: {name}");
    }
    assert!(weights(out) != weights("sft"), "{out}: nothing was learnt");
    let printed = succeed(
        "generate",
        &[
            "--model",
            &folder,
            "--prompt",
            "Item 3: red? ",
            "--max-new-tokens",
            "8",
        ],
    );
    assert!(printed.contains("tokens"), "{printed}");
}

#[test]
fn ppo_with_a_value_head() {
    let printed = train("ppo", "ppo", SAMPLED);
    for word in [
        "KL from the start",
        "before",
        "after",
        "all 3 done",
        "learnt from",
    ] {
        assert!(printed.contains(word), "no {word:?} in: {printed}");
    }
    assert_whole("ppo");
    let figures = &report("ppo")["figures"];
    let kl = &figures["KL from the start, nats a response"];
    // The first rollout is the start policy's own.
    assert_eq!(kl["start"], 0.0);
    assert!(kl["end"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(figures["reward on 4 held-out prompts"]["end"].is_f64());
    let metrics = Path::new(&models().path("ppo")).join("metrics.jsonl");
    let lines = std::fs::read_to_string(metrics).unwrap();
    assert_eq!(lines.lines().count(), 3);
    assert!(
        Path::new(&models().path("ppo"))
            .join("value_head.safetensors")
            .exists()
    );
}

#[test]
fn ppo_with_a_value_network_and_a_limit() {
    let options = format!("{SAMPLED} --value-model network --kl-limit 1e-9 --top-k 9");
    let printed = train("ppo", "ppo_network", &options);
    assert!(
        printed.contains("values     start from the reward model"),
        "{printed}"
    );
    // The second rollout is the first that can differ from the start.
    assert!(printed.contains("ended early after 2"), "{printed}");
    assert_whole("ppo_network");
}

#[test]
fn grpo_with_an_ensemble() {
    let models = models();
    let reward = models.path("reward");
    let options = format!("{SAMPLED} --reward {reward} --pessimism 1 --loss dr-grpo");
    let printed = train("grpo", "grpo", &options);
    assert!(
        printed.contains("disagreement of the reward models"),
        "{printed}"
    );
    // The same model twice agrees with itself.
    assert_eq!(
        report("grpo")["figures"]["disagreement of the reward models"]["end"],
        0.0
    );
    assert_whole("grpo");
}

#[test]
fn rloo_twice_to_the_same_bits() {
    train("rloo", "rloo", SAMPLED);
    assert_whole("rloo");
    train("rloo", "rloo_again", SAMPLED);
    assert!(weights("rloo") == weights("rloo_again"));
}

#[test]
fn dpo() {
    let options = "--batch-tokens 512 --steps 20 --learning-rate 1e-3 --max-new-tokens 16 \
                   --evaluate-every 10 --loss ipo --judged 4";
    let printed = train("dpo", "dpo", options);
    assert!(printed.contains("held-out margin"), "{printed}");
    assert!(
        report("dpo")["figures"]["held-out margin"]["end"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_whole("dpo");
}

#[test]
fn sft_lowers_the_loss_on_held_out_answers() {
    let models = models();
    let figures = &report("sft")["figures"]["held-out loss"];
    let value = |name: &str| figures[name].as_f64().unwrap();
    assert!(value("end") < 0.5 * value("start"), "{figures}");
    // Demonstrations need no second answer.
    let (data, out) = (models.path("demonstrations.jsonl"), models.path("more"));
    let lines: Vec<String> = (0..40)
        .map(|i| format!(r#"{{"prompt": "Item {i}: red? ", "responses": ["Here is red."]}}"#))
        .collect();
    std::fs::write(&data, lines.join("\n")).unwrap();
    let policy = models.path("sft");
    let options = "--algorithm sft --batch-tokens 256 --steps 5 --max-new-tokens 16 --judged 2";
    let mut arguments: Vec<&str> = options.split_whitespace().collect();
    arguments.extend(["--policy", &policy, "--data", &data, "--out", &out]);
    succeed("train_policy", &arguments);
    assert_whole("more");
}

#[test]
fn prompts_alone_are_enough_and_long_ones_lose_their_beginning() {
    let models = models();
    let data = models.path("alone.jsonl");
    let mut lines: Vec<String> = (0..40)
        .map(|i| format!(r#"{{"prompt": "Item {i}: red? "}}"#))
        .collect();
    lines.push(format!(r#"{{"prompt": "{}"}}"#, "very ".repeat(40)));
    lines.push("not JSON".into());
    std::fs::write(&data, lines.join("\n")).unwrap();
    let (policy, reward, out) = (
        models.path("sft"),
        models.path("reward"),
        models.path("alone"),
    );
    let mut arguments = vec!["--algorithm", "grpo", "--policy", &policy, "--data", &data];
    arguments.extend(["--reward", &reward, "--out", &out]);
    arguments.extend(SAMPLED.split_whitespace());
    let printed = succeed("train_policy", &arguments);
    assert!(
        printed.contains("1 prompts lost their beginning"),
        "{printed}"
    );
    assert!(printed.contains("line 42 left out"), "{printed}");
    assert_whole("alone");
}

#[test]
fn another_tokenizer_is_bridged_and_said() {
    let models = models();
    let (data, characters) = (models.path("data.jsonl"), models.path("with_eos.json"));
    let other = models.path("other_reward");
    let mut arguments = crate::run::small_training(&data, &other);
    arguments.extend(["--tokenizer", &characters]);
    succeed("train_reward", &arguments);

    let (policy, out) = (models.path("sft"), models.path("bridged"));
    let mut arguments = vec!["--algorithm", "ppo", "--policy", &policy, "--data", &data];
    arguments.extend(["--reward", &other, "--out", &out]);
    arguments.extend(SAMPLED.split_whitespace());
    let printed = succeed("train_policy", &arguments);
    assert!(printed.contains("tokenised anew"), "{printed}");
    assert_whole("bridged");

    // The reward is that of the text with its end: `score`, which always adds one, says the same.
    let samples = std::fs::read_to_string(Path::new(&out).join("samples.jsonl")).unwrap();
    let mut samples = samples
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let sample = samples
        .find(|sample| sample["before"]["finish"] == "stop")
        .unwrap();
    let (file, scores) = (models.path("sampled.jsonl"), models.path("scores.jsonl"));
    let record = serde_json::json!({
        "prompt": sample["prompt"], "responses": [sample["before"]["text"]],
    });
    std::fs::write(&file, record.to_string()).unwrap();
    succeed(
        "score",
        &["--model", &other, "--data", &file, "--out", &scores],
    );
    let scores: Value = serde_json::from_str(&std::fs::read_to_string(&scores).unwrap()).unwrap();
    let difference =
        scores["rewards"][0].as_f64().unwrap() - sample["before"]["reward"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{difference}");

    // Within an ensemble there is one tokenizer.
    let reward = models.path("reward");
    arguments.extend(["--reward", &reward]);
    let error = fail("train_policy", &arguments);
    assert!(error.contains("different tokenizers"), "{error}");
}

#[test]
fn time_that_is_up_ends_a_run_cleanly() {
    let options =
        format!("{SAMPLED} --rollouts 100000 --minutes 0.02").replace("--rollouts 3 ", "");
    let printed = train("grpo", "short", &options);
    assert!(printed.contains("time is up after"), "{printed}");
    assert_whole("short");
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let models = models();
    let (policy, reward, data) = (
        models.path("sft"),
        models.path("reward"),
        models.path("data.jsonl"),
    );
    let out = models.path("refused");
    let refused = |options: &str, says: &str| {
        let options = options
            .replace("POLICY", &policy)
            .replace("REWARD", &reward);
        let mut arguments: Vec<&str> = options.split_whitespace().collect();
        arguments.extend(["--data", &data, "--out", &out]);
        let error = fail("train_policy", &arguments);
        assert!(error.contains(says), "no {says:?} in: {error}");
        assert!(!Path::new(&out).join("model.safetensors").exists());
    };
    let ppo = |options: &str, says: &str| {
        let text = format!("--algorithm ppo --policy POLICY --reward REWARD {options}");
        refused(&text, says);
    };
    refused("--algorithm ppo --policy POLICY", "--reward");
    refused("--algorithm ppo --reward REWARD", "--policy");
    refused(
        "--algorithm ppo --policy POLICY --reward POLICY --max-new-tokens 16",
        "score.weight",
    );
    refused(
        "--algorithm dpo --policy POLICY --kl-coef 1 --max-new-tokens 16",
        "--kl-coef is for ppo",
    );
    refused(
        "--algorithm dpo --policy POLICY --loss dapo --max-new-tokens 16",
        "--loss dapo",
    );
    ppo("--beta 1", "--beta");
    ppo("--max-new-tokens 64", "--max-new-tokens");
    ppo("--max-new-tokens 16 --temperature 0", "temperature");
    ppo("--max-new-tokens 16 --top-p 0", "top_p");
    ppo("--max-new-tokens 16 --context 100", "--context");
    ppo("--max-new-tokens 16 --pessimism=-1", "pessimism");
    ppo("--max-new-tokens 16 --batch-tokens 20", "batch_tokens");
    ppo("--max-new-tokens 16 --minutes 0", "--minutes");
}

#[test]
fn a_reward_that_is_not_finite_stops_the_run() {
    let models = models();
    let broken = models.path("broken_reward");
    std::fs::create_dir(&broken).unwrap();
    let from = models.path("reward");
    let config = Path::new("config.json");
    std::fs::copy(
        Path::new(&from).join(config),
        Path::new(&broken).join(config),
    )
    .unwrap();
    let mut bytes = std::fs::read(Path::new(&from).join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = json["score.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + start..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(Path::new(&broken).join("model.safetensors"), bytes).unwrap();

    let (policy, data, out) = (
        models.path("sft"),
        models.path("data.jsonl"),
        models.path("nan"),
    );
    let mut arguments = vec!["--algorithm", "ppo", "--policy", &policy, "--data", &data];
    arguments.extend(["--reward", &broken, "--out", &out]);
    arguments.extend(SAMPLED.split_whitespace());
    let error = fail("train_policy", &arguments);
    assert!(error.contains("reward is not finite"), "{error}");
    assert!(!Path::new(&out).join("model.safetensors").exists());
}

/// Ctrl-C is a signal, which this test can send on Unix only.
#[test]
#[cfg(unix)]
fn ctrl_c_stops_and_saves() {
    let models = models();
    let (data, out) = (models.path("data.jsonl"), models.path("interrupted"));
    let mut arguments = small_sft(&data, &out);
    let steps = arguments.iter().position(|&a| a == "--steps").unwrap();
    arguments[steps + 1] = "1000000";
    arguments.extend(["--patience", "0"]);
    let mut run = command("train_policy", &arguments)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = Path::new(&out).join("metrics.jsonl");
    let started = std::time::Instant::now();
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        assert!(
            started.elapsed().as_secs() < 60,
            "nothing was learnt in a minute"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = run.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
    assert!(run.wait().unwrap().success());
    assert_whole("interrupted");
    assert!(
        report("interrupted")["ended"]
            .as_str()
            .unwrap()
            .contains("interrupted")
    );
}
