//! What the run comes to: a table, samples and a picture.

use std::path::Path;

use anyhow::Result;
use example_tools::plot::{Series, line_chart};
use prefgrad::model::Parameters;

use crate::judge::Measured;
use crate::setup::Setup;
use crate::stages::save_policy;

/// Saves the improved writer.
pub fn save(setup: &Setup, out: &Path, improved: &Parameters) -> Result<()> {
    save_policy(setup, improved, &out.join("policy"))
}

/// Prints before and after, and draws reward against divergence.
pub fn show(out: &Path, before: &Measured, after: &Measured, points: &[Measured]) -> Result<()> {
    let gain = (after.gold - before.gold) / before.gold_deviation;
    println!("\n   on fresh questions             before    after");
    let row = |name: &str, before: f64, after: f64| {
        println!("   {name:<28} {before:>8.2} {after:>8.2}");
    };
    row("true preference (gold)", before.gold, after.gold);
    row("learned reward (proxy)", before.proxy, after.proxy);
    row("KL from the start, nats", before.kl, after.kl);
    row("tokens an answer", before.length, after.length);
    println!("   the true preference rose by {gain:.2} standard deviations\n");
    for (title, measured) in [("before", before), ("after", after)] {
        println!("   {title}");
        for (question, answer, gold) in &measured.samples {
            println!("   {gold:>5.1}  {question:<32} {answer}");
        }
    }
    println!();
    let line = |pick: fn(&Measured) -> f64, deviation: f64| -> Vec<(f64, f64)> {
        let first = pick(before);
        let point = |m: &Measured| (m.kl, (pick(m) - first) / deviation);
        points.iter().map(point).collect()
    };
    let proxy = line(|m| m.proxy, before.proxy_deviation);
    let gold = line(|m| m.gold, before.gold_deviation);
    line_chart(
        &out.join("goodhart.png"),
        "What the learned reward says, and what people think",
        "KL divergence from the start, nats an answer",
        "change in standard deviations of the start",
        &[
            Series {
                name: "learned reward (proxy)",
                points: &proxy,
            },
            Series {
                name: "true preference (gold)",
                points: &gold,
            },
        ],
    )
}
