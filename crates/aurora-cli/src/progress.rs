//! Progress display on standard error: bars with throughput and time left on a terminal, a few plain lines where the
//! output goes to a file or a log.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use aurora_train::metrics::TaskMetrics;
use aurora_train::progress::{EvaluationReport, Progress, StepReport};
use aurora_train::recall::RetrievalReport;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{count, duration};

/// Maximum plain lines about the steps of a run.
const STEP_LINES: u64 = 20;

/// Interval between the plain lines of a long piece of work.
const PART_EVERY: Duration = Duration::from_secs(10);

/// Minimum duration of a piece of work that gets a plain line.
const PART_WORTH_TELLING: Duration = Duration::from_secs(5);

/// Progress display: bars on a terminal, plain lines elsewhere.
pub enum ProgressDisplay {
    /// Bars on a terminal.
    Bars(Bars),
    /// Plain lines for logs.
    Lines(Lines<std::io::Stderr>),
}

impl ProgressDisplay {
    /// Bars if standard error is a terminal, else lines.
    pub fn new() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bars(Bars::default())
        } else {
            Self::Lines(Lines::new(std::io::stderr()))
        }
    }

    fn inner(&mut self) -> &mut dyn Progress {
        match self {
            Self::Bars(bars) => bars,
            Self::Lines(lines) => lines,
        }
    }
}

impl Default for ProgressDisplay {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for ProgressDisplay {
    fn on_step(&mut self, report: &StepReport<'_>) {
        self.inner().on_step(report);
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        self.inner().on_evaluation(report);
    }

    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        self.inner().on_part(what, done, total);
    }

    fn message(&mut self, text: &str) {
        self.inner().message(text);
    }
}

/// Smoothed time per step, for throughput and time left.
#[derive(Debug, Clone, Copy, Default)]
struct Throughput {
    seconds: Option<f64>,
    pairs: f64,
}

impl Throughput {
    /// Updates the average with a step; the first ones, slower than the rest, are soon forgotten.
    fn update(&mut self, report: &StepReport<'_>) {
        let old = self.seconds.unwrap_or(report.seconds);
        self.seconds = Some(old + 0.1 * (report.seconds - old));
        self.pairs = report.pairs as f64;
    }

    fn pairs_per_second(&self) -> f64 {
        self.pairs / self.seconds.unwrap_or(0.0).max(1e-9)
    }

    fn left(&self, report: &StepReport<'_>) -> String {
        let steps = report.steps.saturating_sub(report.step);
        duration(self.seconds.unwrap_or(0.0) * steps as f64)
    }

    /// Text beside a step, shared by both displays.
    fn words(&self, report: &StepReport<'_>) -> String {
        format!(
            "loss {:.3}, {:.0} pairs/s, {} left",
            report.loss,
            self.pairs_per_second(),
            self.left(report)
        )
    }
}

fn evaluation_words(report: &EvaluationReport<'_>) -> String {
    let parts = match report.metrics {
        TaskMetrics::Recall(RetrievalReport { i2t, t2i }) => format!(
            "R@1/5/10 to text {:.1} {:.1} {:.1}, to image {:.1} {:.1} {:.1}",
            i2t.r1, i2t.r5, i2t.r10, t2i.r1, t2i.r5, t2i.r10
        ),
        TaskMetrics::Accuracy(accuracy) => format!("{} questions", count(accuracy.questions)),
    };
    format!(
        "step {} {}: {} {:.2} % ({parts}) in {}{}",
        report.step,
        report.split,
        report.metrics.name(),
        report.metrics.primary(),
        duration(report.seconds),
        if report.best { ", best so far" } else { "" }
    )
}

/// Progress bars on a terminal.
#[derive(Debug, Default)]
pub struct Bars {
    throughput: Throughput,
    /// The bar of the steps, kept while evaluations show theirs.
    steps: Option<ProgressBar>,
    part: Option<ProgressBar>,
}

impl Bars {
    fn bar(total: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        ProgressBar::new(total).with_style(style)
    }

    fn say(&self, text: &str) {
        match self.part.as_ref().or(self.steps.as_ref()) {
            Some(bar) => bar.suspend(|| crate::output::note(text)),
            None => crate::output::note(text),
        }
    }
}

impl Progress for Bars {
    fn on_step(&mut self, report: &StepReport<'_>) {
        self.throughput.update(report);
        let bar = self
            .steps
            .get_or_insert_with(|| Self::bar(report.steps, "step {pos}/{len} [{bar:30}] {msg}"));
        bar.set_message(self.throughput.words(report));
        bar.set_position(report.step);
        if report.step >= report.steps {
            bar.finish_and_clear();
            self.steps = None;
        }
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        self.say(&evaluation_words(report));
    }

    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        if done >= total {
            if let Some(bar) = self.part.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = self.part.get_or_insert_with(|| {
            Self::bar(total, "{msg} {pos}/{len} [{bar:30}] {per_sec}, {eta} left")
        });
        bar.set_message(what.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    }

    fn message(&mut self, text: &str) {
        self.say(text);
    }
}

/// Plain lines.
#[derive(Debug)]
pub struct Lines<W: Write> {
    out: W,
    throughput: Throughput,
    part: Option<(String, Instant, Instant)>,
}

impl<W: Write> Lines<W> {
    /// Lines written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, throughput: Throughput::default(), part: None }
    }

    fn say(&mut self, text: &str) {
        // A log that cannot be written must not end the run.
        let _ = writeln!(self.out, "{text}");
    }
}

impl<W: Write> Progress for Lines<W> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        self.throughput.update(report);
        let line_of = |step: u64| step.saturating_mul(STEP_LINES - 1) / report.steps.max(1);
        let first_of_its_line = line_of(report.step) != line_of(report.step.saturating_sub(1));
        if report.step == 1 || first_of_its_line || report.step == report.steps {
            let words = self.throughput.words(report);
            self.say(&format!("step {}/{}: {words}", report.step, report.steps));
        }
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        self.say(&evaluation_words(report));
    }

    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        let now = Instant::now();
        let known = self.part.take().filter(|part| part.0 == what && done > 0);
        let (name, begun, told) = known.unwrap_or_else(|| (what.to_owned(), now, now));
        let spent = now - begun;
        if done >= total {
            if spent >= PART_WORTH_TELLING {
                self.say(&format!("{name}: {total} done in {}", duration(spent.as_secs_f64())));
            }
            return;
        }
        let told = if now - told >= PART_EVERY {
            self.say(&format!("{name}: {done}/{total}"));
            now
        } else {
            told
        };
        self.part = Some((name, begun, told));
    }

    fn message(&mut self, text: &str) {
        self.say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aurora_train::accuracy::AccuracyReport;
    use aurora_train::recall::Recall;

    fn step(step: u64, steps: u64) -> StepReport<'static> {
        StepReport {
            step,
            steps,
            loss: 1.25,
            values: &[],
            learning_rate_factor: 1.0,
            pairs: 32,
            seconds: 0.5,
        }
    }

    fn written(lines: Lines<Vec<u8>>) -> Vec<String> {
        String::from_utf8(lines.out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_long_run_takes_few_lines() {
        for steps in [1, 7, 20, 600, 100_000] {
            let mut lines = Lines::new(Vec::new());
            for i in 1..=steps {
                lines.on_step(&step(i, steps));
            }
            let text = written(lines);
            assert!(text.len() as u64 <= STEP_LINES.min(steps), "{steps}: {}", text.len());
            assert!(text.last().unwrap().starts_with(&format!("step {steps}/{steps}:")));
        }
    }

    #[test]
    fn a_line_has_throughput_and_time_left() {
        let mut lines = Lines::new(Vec::new());
        lines.on_step(&step(1, 241));
        assert_eq!(written(lines), ["step 1/241: loss 1.250, 64 pairs/s, 2 min 00 s left"]);
    }

    #[test]
    fn evaluations_are_told_with_all_recalls() {
        let recall = Recall { r1: 1.0, r5: 2.0, r10: 3.0 };
        let report = TaskMetrics::Recall(RetrievalReport { i2t: recall, t2i: recall });
        let mut lines = Lines::new(Vec::new());
        lines.on_evaluation(&EvaluationReport {
            step: 5,
            split: "validation",
            metrics: &report,
            best: true,
            seconds: 1.5,
        });
        assert_eq!(
            written(lines),
            ["step 5 validation: mean recall 2.00 % (R@1/5/10 to text 1.0 2.0 3.0, to image \
              1.0 2.0 3.0) in 1.5 s, best so far"]
        );
    }

    #[test]
    fn accuracy_is_told_with_its_number_of_questions() {
        let mut report = AccuracyReport::default();
        report.add(1.0, 1.0, "yes/no");
        report.add(0.5, 1.0, "other");
        let metrics = TaskMetrics::Accuracy(report);
        let (split, best) = ("validation", false);
        let report = EvaluationReport { step: 7, split, metrics: &metrics, best, seconds: 1.0 };
        assert_eq!(
            evaluation_words(&report),
            "step 7 validation: accuracy 75.00 % (2 questions) in 1.0 s"
        );
    }

    #[test]
    fn quick_parts_are_silent() {
        let mut lines = Lines::new(Vec::new());
        for i in 0..=100 {
            lines.on_part("images", i, 100);
        }
        lines.on_part("nothing", 0, 0);
        assert!(written(lines).is_empty());
    }
}
