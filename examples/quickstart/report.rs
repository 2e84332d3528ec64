//! What the run comes to: a table, samples and a picture.

use std::path::Path;

use anyhow::Result;
use example_tools::plot::{GoodhartCurve, GoodhartPoint, goodhart};
use prefgrad::model::Parameters;

use crate::Args;
use crate::judge::Measured;
use crate::setup::Setup;
use crate::stages::save_policy;

/// Saves the improved writer.
pub fn save(setup: &Setup, out: &Path, improved: &Parameters) -> Result<()> {
    save_policy(setup, improved, &out.join("policy"))
}

/// Prints before and after, and draws reward against divergence.
pub fn show(
    args: &Args,
    (before, after): (&Measured, &Measured),
    points: &[Measured],
) -> Result<()> {
    let (out, algorithm, kl_limit) = (&args.out, args.algorithm, args.kl_limit);
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
    let change = |value: f64, first: f64, deviation: f64| (value - first) / deviation;
    let points: Vec<GoodhartPoint> = points
        .iter()
        .map(|m| GoodhartPoint {
            kl: m.kl,
            proxy: change(m.proxy, before.proxy, before.proxy_deviation),
            gold: change(m.gold, before.gold, before.gold_deviation),
        })
        .collect();
    let curve = GoodhartCurve {
        name: &format!("{algorithm:?}").to_uppercase(),
        points: &points,
    };
    goodhart(
        &out.join("goodhart.png"),
        "What the learned reward says, and what people think",
        &[curve],
        Some(kl_limit),
    )
}
