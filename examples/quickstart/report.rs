//! What the run comes to: a table, samples and a picture.

use anyhow::Result;
use example_tools::plot::{GoodhartCurve, GoodhartPoint, goodhart};
use prefgrad::model::Parameters;

use crate::judge::Measured;
use crate::setup::Setup;
use crate::stages::save_policy;
use crate::{Algorithm, Args};

/// What one algorithm came to.
pub struct Outcome {
    /// Which.
    pub algorithm: Algorithm,
    /// The writer that is kept.
    pub after: Measured,
    /// Measurements on the way, the start's first.
    pub points: Vec<Measured>,
    /// Tokens sampled and trained on.
    pub tokens: usize,
}

/// Saves the improved writer: the first algorithm's as `policy`, others under their names.
pub fn save(setup: &Setup, args: &Args, algorithm: Algorithm, improved: &Parameters) -> Result<()> {
    let folder = match args.algorithm.first() == Some(&algorithm) {
        true => "policy".to_owned(),
        false => format!("policy-{}", algorithm.name().to_lowercase()),
    };
    save_policy(setup, improved, &args.out.join(folder))
}

/// Prints before and after, and draws rewards against divergence.
pub fn show(args: &Args, before: &Measured, outcomes: &[Outcome]) -> Result<()> {
    print!("\n   on fresh questions            start");
    for outcome in outcomes {
        print!(" {:>8}", outcome.algorithm.name());
    }
    println!();
    let row = |name: &str, pick: &dyn Fn(&Measured) -> f64| {
        print!("   {name:<26} {:>8.2}", pick(before));
        for outcome in outcomes {
            print!(" {:>8.2}", pick(&outcome.after));
        }
        println!();
    };
    row("true preference (gold)", &|m| m.gold);
    row("  rise in deviations", &|m| m.gold_rise(before));
    row("learned reward (proxy)", &|m| m.proxy);
    row("KL from the start, nats", &|m| m.kl);
    row("tokens an answer", &|m| m.length);
    print!("   {:<26} {:>8}", "tokens of the budget", "");
    for outcome in outcomes {
        print!(" {:>7}k", outcome.tokens / 1000);
    }
    println!("\n");
    let afters = outcomes.iter().map(|o| (o.algorithm.name(), &o.after));
    for (title, measured) in [("start".to_owned(), before)].into_iter().chain(afters) {
        println!("   {title}");
        for (question, answer, gold) in &measured.samples {
            println!("   {gold:>5.1}  {question:<32} {answer}");
        }
    }
    println!();
    draw(args, before, outcomes)
}

fn draw(args: &Args, before: &Measured, outcomes: &[Outcome]) -> Result<()> {
    let lines: Vec<(String, Vec<GoodhartPoint>)> = outcomes
        .iter()
        .map(|outcome| {
            let points = outcome.points.iter().map(|m| GoodhartPoint {
                kl: m.kl,
                proxy: (m.proxy - before.proxy) / before.proxy_deviation,
                gold: m.gold_rise(before),
            });
            (outcome.algorithm.name(), points.collect())
        })
        .collect();
    let curves: Vec<GoodhartCurve<'_>> = lines
        .iter()
        .map(|(name, points)| GoodhartCurve { name, points })
        .collect();
    goodhart(
        &args.out.join("goodhart.png"),
        "What the learned reward says, and what people think",
        &curves,
        Some(args.kl_limit),
    )
}
