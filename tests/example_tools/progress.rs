//! The figures behind the bar.

use std::time::Duration;

use example_tools::progress::{Figure, Meter, Progress, StepStatus};

fn status(step: u64, loss: f64) -> StepStatus {
    StepStatus {
        step,
        tokens: 1000,
        loss,
        accuracy: Some(0.75),
    }
}

#[test]
fn speed_and_time_left_follow_the_last_half_minute() {
    let mut meter = Meter::new("training", 100, 200);
    // The first step compiles for a minute, the others take half a second each.
    meter.observe(Duration::from_secs(60), status(101, 0.7));
    for step in 102..=180 {
        let elapsed = 60.0 + 0.5 * (step - 101) as f64;
        meter.observe(Duration::from_secs_f64(elapsed), status(step, 0.7));
    }
    assert!((meter.tokens_per_second().unwrap() - 2000.0).abs() < 40.0);
    let left = meter.time_left().unwrap().as_secs_f64();
    assert!((left - 10.0).abs() < 0.2, "{left}");
}

#[test]
fn a_line_says_it_all() {
    let mut meter = Meter::new("training", 0, 10);
    assert_eq!(meter.message(), "0/10");
    meter.observe(Duration::from_secs(20), status(1, 0.7));
    meter.observe(Duration::from_secs(40), status(2, 0.5));
    assert_eq!(
        meter.line(),
        "training 2/10  loss 0.5947  accuracy 75.0 %  50 tokens/s  2 min 40 s left"
    );
}

#[test]
fn it_needs_no_terminal() {
    let mut progress = Progress::new("training", 0, 2);
    progress.update(status(1, f64::NAN));
    progress.print_line("a line of its own");
    progress.update(status(2, 0.1));
    progress.finish();
}

#[test]
fn figures_have_names_digits_and_units() {
    let mut meter = Meter::new("ppo", 0, 10);
    let figures = [Figure::new("KL", 2.0, 1), Figure::share("ended", 0.5)];
    meter.observe_figures(Duration::from_secs(10), (1, 200), &figures);
    meter.observe_figures(
        Duration::from_secs(20),
        (2, 200),
        &[Figure::new("KL", 2.0, 1)],
    );
    assert_eq!(
        meter.line(),
        "ppo 2/10  KL 2.0  ended 50.0 %  20 tokens/s  1 min 20 s left"
    );
}

#[test]
fn a_time_limit_ends_before_the_steps_do() {
    let limit = Some(Duration::from_secs(30));
    let mut progress = Progress::new("ppo", 0, 1000).ends_after(limit);
    std::thread::sleep(Duration::from_millis(2));
    progress.show(1, 10, &[]);
    assert!(progress.meter().time_left().unwrap() <= Duration::from_secs(30));
}
