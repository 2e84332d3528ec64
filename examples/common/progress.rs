//! What a person watches while a run goes on.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Speed and time left are judged by the last half minute: the first steps compile shaders.
const WINDOW: Duration = Duration::from_secs(30);
/// How often a log, which cannot redraw a line, gets one.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// The weight of the past in the figures that are shown.
const SMOOTHING: f64 = 0.9;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStatus {
    /// Steps taken, this one included.
    pub step: u64,
    /// Tokens that this step processed.
    pub tokens: u64,
    /// The step's mean loss.
    pub loss: f64,
    /// The share of the step's pairs that were ranked as people did, where there are pairs.
    pub accuracy: Option<f64>,
}

/// A value with a name, such as `reward 1.25`; what is shown is smoothed over the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What it is called.
    pub name: &'static str,
    /// The step's value; one that is not finite shows itself.
    pub value: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// What follows the number, with the space before it.
    pub unit: &'static str,
}

impl Figure {
    /// A figure without a unit.
    pub fn new(name: &'static str, value: f64, digits: usize) -> Self {
        Self {
            name,
            value,
            digits,
            unit: "",
        }
    }

    /// A share from 0 to 1, shown in per cent.
    pub fn share(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value: 100.0 * value,
            digits: 1,
            unit: " %",
        }
    }
}

impl StepStatus {
    fn figures(&self) -> Vec<Figure> {
        let accuracy = self.accuracy.map(|share| Figure::share("accuracy", share));
        let loss = Figure::new("loss", self.loss, 4);
        std::iter::once(loss).chain(accuracy).collect()
    }
}

/// A bar with figures, tokens a second and time left; where standard error is not a terminal, a
/// line every five seconds and one for the last step.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    meter: Meter,
    started: Instant,
    logged: Option<Instant>,
}

impl Progress {
    /// Starts at `steps_done` (0, or a resumed run's step) of `steps_total`; `phase` names the work.
    pub fn new(phase: &str, steps_done: u64, steps_total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps_total), ProgressDrawTarget::stderr());
        // The template is a constant; if indicatif ever refuses it, its default still shows progress.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {wide_msg}") {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(phase.to_owned());
        bar.set_position(steps_done);
        Self {
            bar,
            meter: Meter::new(phase, steps_done, steps_total),
            started: Instant::now(),
            logged: None,
        }
    }

    /// The work ends `limit` after now, whatever is left of the steps.
    pub fn ends_after(mut self, limit: Option<Duration>) -> Self {
        self.meter.limit = limit;
        self
    }

    /// The figures behind the bar.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Shows a step's loss and accuracy.
    pub fn update(&mut self, status: StepStatus) {
        self.show(status.step, status.tokens, &status.figures());
    }

    /// Shows the figures of `step`, the number of steps taken, which processed `tokens`.
    pub fn show(&mut self, step: u64, tokens: u64, figures: &[Figure]) {
        self.meter
            .observe_figures(self.started.elapsed(), (step, tokens), figures);
        if !self.bar.is_hidden() {
            self.bar.set_message(self.meter.message());
            self.bar.set_position(step);
            return;
        }
        let due = self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if due || step == self.meter.steps_total {
            self.logged = Some(Instant::now());
            eprintln!("{}", self.meter.line());
        }
    }

    /// Prints a line of its own above the bar.
    pub fn print_line(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Leaves the bar as it stands.
    pub fn finish(&self) {
        self.bar.abandon();
    }
}

/// The figures behind the bar, on a clock that the caller holds.
#[derive(Debug, Clone)]
pub struct Meter {
    phase: String,
    steps_total: u64,
    /// Time, steps and tokens so far; the first entry is the start or the edge of the window.
    history: VecDeque<(Duration, u64, u64)>,
    /// Each figure as it was last given, and its mean.
    figures: Vec<(Figure, Smoothed)>,
    /// Work ends at this time, whatever is left of the steps.
    limit: Option<Duration>,
}

impl Meter {
    /// As [`Progress::new`]; the clock starts at zero.
    pub fn new(phase: &str, steps_done: u64, steps_total: u64) -> Self {
        Self {
            phase: phase.to_owned(),
            steps_total,
            history: VecDeque::from([(Duration::ZERO, steps_done, 0)]),
            figures: Vec::new(),
            limit: None,
        }
    }

    /// Takes in a step that ended at `elapsed`.
    pub fn observe(&mut self, elapsed: Duration, status: StepStatus) {
        let counts = (status.step, status.tokens);
        self.observe_figures(elapsed, counts, &status.figures());
    }

    /// The same with any figures: `step` steps are taken, the last of them of `tokens` tokens.
    pub fn observe_figures(
        &mut self,
        elapsed: Duration,
        (step, tokens): (u64, u64),
        figures: &[Figure],
    ) {
        let before = self.history.back().map_or(0, |&(_, _, tokens)| tokens);
        self.history.push_back((elapsed, step, before + tokens));
        while self.history.len() > 2 && self.history[1].0 + WINDOW < elapsed {
            self.history.pop_front();
        }
        for figure in figures {
            let known = self.figures.iter_mut().find(|f| f.0.name == figure.name);
            match known {
                Some((shown, mean)) => {
                    *shown = *figure;
                    mean.add(figure.value);
                }
                None => {
                    let mut mean = Smoothed::default();
                    mean.add(figure.value);
                    self.figures.push((*figure, mean));
                }
            }
        }
    }

    /// Tokens a second over the last half minute.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let (seconds, _, tokens) = self.window()?;
        Some(tokens as f64 / seconds)
    }

    /// The time that the remaining steps take at the pace of the last half minute, or what is left
    /// of the time limit if that is less.
    pub fn time_left(&self) -> Option<Duration> {
        let (seconds, steps, _) = self.window()?;
        let remaining = self.steps_total.saturating_sub(self.step());
        let left = remaining as f64 * seconds / steps as f64;
        let by_steps = (steps > 0).then(|| Duration::try_from_secs_f64(left).ok())?;
        let elapsed = self.history.back().map_or(Duration::ZERO, |last| last.0);
        let by_limit = self.limit.map(|limit| limit.saturating_sub(elapsed));
        by_steps.into_iter().chain(by_limit).min()
    }

    /// The figures in a line: step, smoothed figures, speed, time left.
    pub fn message(&self) -> String {
        let mut parts = vec![format!("{}/{}", self.step(), self.steps_total)];
        for (figure, mean) in &self.figures {
            if let Some(value) = mean.value() {
                let (name, digits, unit) = (figure.name, figure.digits, figure.unit);
                parts.push(format!("{name} {value:.digits$}{unit}"));
            }
        }
        if let Some(speed) = self.tokens_per_second() {
            parts.push(format!("{} tokens/s", with_prefix(speed)));
        }
        if let Some(left) = self.time_left() {
            parts.push(format!("{} left", clock(left)));
        }
        parts.join("  ")
    }

    /// [`message`](Self::message) after the name of the phase, for a log.
    pub fn line(&self) -> String {
        format!("{} {}", self.phase, self.message())
    }

    fn step(&self) -> u64 {
        self.history.back().map_or(0, |&(_, step, _)| step)
    }

    /// Seconds, steps and tokens from the oldest to the newest entry, once time has passed.
    fn window(&self) -> Option<(f64, u64, u64)> {
        let (first, last) = (self.history.front()?, self.history.back()?);
        let seconds = (last.0.saturating_sub(first.0)).as_secs_f64();
        (seconds > 0.0).then(|| (seconds, last.1.saturating_sub(first.1), last.2 - first.2))
    }
}

/// An exponential mean without the pull of its start.
#[derive(Debug, Clone, Copy, Default)]
struct Smoothed {
    sum: f64,
    weight: f64,
}

impl Smoothed {
    fn add(&mut self, value: f64) {
        self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * value;
        self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

fn with_prefix(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {:02} s", seconds % 60),
        _ => format!("{hours} h {minutes:02} min"),
    }
}
