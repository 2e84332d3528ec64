//! The programs that need no files.

use std::path::Path;

use crate::run::{command, fail, succeed};

#[test]
fn embed_finds_the_hosts_hidden_weights() {
    let printed = succeed("embed", &[]);
    // Each line: feature, hidden, found.
    let rows: Vec<Vec<f64>> = printed
        .lines()
        .map(|line| {
            line.split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect()
        })
        .filter(|row: &Vec<f64>| row.len() == 3)
        .collect();
    assert_eq!(rows.len(), 4, "{printed}");
    for row in rows {
        assert!((row[1] - row[2]).abs() < 0.15, "{printed}");
    }
}

#[test]
fn embed_prints_a_complete_shader() {
    let printed = succeed("embed", &["--wgsl"]);
    let module = naga::front::wgsl::parse_str(&printed).unwrap();
    assert_eq!(module.entry_points.len(), 1);
}

#[test]
fn doctor_finds_a_kernel_right() {
    let printed = succeed("doctor", &["--kernel", "pairwise_loss"]);
    assert!(
        printed.contains("adapter") && printed.contains("preference.pairwise_loss"),
        "{printed}"
    );
    assert!(printed.contains(" yes"), "{printed}");
}

#[test]
fn roofline_holds_a_kernel_against_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = [
        "--filter",
        "bias_gradient",
        "--seconds",
        "0.01",
        "--out",
        out,
    ];
    let printed = succeed("roofline", &arguments);
    assert!(printed.contains("nn.bias_gradient"), "{printed}");
    let text = std::fs::read_to_string(folder.path().join("roofline.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let roof = &report["roof"];
    let copies = [&roof["copy_kernel_gb_s"], &roof["copy_command_gb_s"]].map(number);
    let bandwidth = copies[0].max(copies[1]) * 1e9;
    let rate = number(&roof["arithmetic_gflop_s"]) * 1e9;
    assert!(bandwidth > 1e7 && rate > 1e7, "{text}");
    let cases = report["cases"].as_array().unwrap();
    assert!(!cases.is_empty(), "{text}");
    for case in cases {
        let least = (number(&case["bytes"]) / bandwidth).max(number(&case["flops"]) / rate);
        let share = least / number(&case["seconds"]);
        assert!(
            (number(&case["share"]) / share - 1.0).abs() < 1e-9,
            "{case}"
        );
    }
    let picture = std::fs::read(folder.path().join("roofline.png")).unwrap();
    assert_eq!(&picture[..8], b"\x89PNG\r\n\x1a\n");
}

/// 256 MiB in one binding are more than software drivers have room for.
#[test]
fn roofline_times_work_of_a_gpus_size_or_says_that_it_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments = [
        "--large",
        "--filter",
        "reduce.fill",
        "--seconds",
        "0.01",
        "--out",
        out,
    ];
    let printed = succeed("roofline", &arguments);
    let text = std::fs::read_to_string(folder.path().join("roofline-large.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let timed = |name: &str| {
        let cases = report["cases"].as_array().unwrap();
        cases.iter().any(|case| case["case"] == name)
    };
    assert!(timed("one workgroup"), "{text}");
    let skipped = printed.contains("skipped reduce.fill 256 MiB");
    assert!(timed("256 MiB") != skipped, "{printed}{text}");
    assert!(folder.path().join("roofline-large.png").exists());
    assert!(!folder.path().join("roofline.json").exists());
}

#[test]
fn roofline_refuses_a_name_that_no_kernel_has() {
    let error = fail("roofline", &["--filter", "no such kernel"]);
    assert!(
        error.contains("no such kernel") && error.contains("nn.matmul"),
        "{error}"
    );
}

#[test]
fn quickstart_goes_through_the_whole_loop() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let small = [
        "--out",
        out,
        "--sft-steps",
        "60",
        "--comparisons",
        "120",
        "--reward-steps",
        "4",
        "--budget",
        "12000",
        "--algorithm",
        "ppo,grpo,dpo",
    ];
    let printed = succeed("quickstart", &small);
    assert!(printed.contains("rise in deviations"), "{printed}");
    for name in [
        "comparisons.jsonl",
        "goodhart.png",
        "metrics.jsonl",
        "start/model.safetensors",
        "reward/model.safetensors",
        "reward/tokenizer.json",
        "policy/model.safetensors",
        "policy/generation_config.json",
        "policy-grpo/config.json",
        "policy-dpo/config.json",
    ] {
        assert!(Path::new(out).join(name).exists(), "{name}");
    }
    // What it leaves serves the other programs.
    let [policy, reward] = ["policy", "reward"].map(|name| format!("{out}/{name}"));
    let answers = succeed(
        "generate",
        &[
            "--model",
            &policy,
            "--prompt",
            "My lamp is broken.\n",
            "--max-new-tokens",
            "8",
        ],
    );
    assert!(!answers.trim().is_empty());
    let data = format!("{out}/comparisons.jsonl");
    let scores = format!("{out}/scores.jsonl");
    succeed(
        "score",
        &["--model", &reward, "--data", &data, "--out", &scores],
    );
}

#[test]
fn without_an_adapter_the_message_says_what_to_do() {
    let output = command("doctor", &[])
        .env("WGPU_ADAPTER_NAME", "no such adapter")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("no such adapter") && !error.contains("panicked"),
        "{error}"
    );
}
