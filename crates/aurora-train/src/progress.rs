//! Progress listeners of a run. Nothing here prints: the caller decides.

use crate::metrics::TaskMetrics;

/// Report of an optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Loss of the step.
    pub loss: f64,
    /// Loss terms and other values of this step, by name.
    pub values: &'a [(&'a str, f64)],
    /// Schedule's factor on every learning rate.
    pub learning_rate_factor: f64,
    /// Pairs in the batch.
    pub pairs: usize,
    /// Wall time of the step, seconds.
    pub seconds: f64,
}

/// Report of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationReport<'a> {
    /// Steps done so far.
    pub step: u64,
    /// Split ("validation", "test").
    pub split: &'a str,
    /// Metrics of the task.
    pub metrics: &'a TaskMetrics,
    /// True if it is the best of the run so far.
    pub best: bool,
    /// Wall time, seconds.
    pub seconds: f64,
}

/// Progress listener of a run. Every method does nothing unless it is overridden.
pub trait Progress {
    /// Called after an optimizer step.
    fn on_step(&mut self, report: &StepReport<'_>) {
        let _ = report;
    }

    /// Called after an evaluation.
    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        let _ = report;
    }

    /// Called when `done` of `total` parts of the work `what` are done (an evaluation, a download of
    /// features, ...). Work starts with `done` = 0 and ends with `done` = `total`.
    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        let _ = (what, done, total);
    }

    /// Called with a line of text for the user.
    fn message(&mut self, text: &str) {
        let _ = text;
    }
}

impl<P: Progress + ?Sized> Progress for &mut P {
    fn on_step(&mut self, report: &StepReport<'_>) {
        (**self).on_step(report);
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        (**self).on_evaluation(report);
    }

    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        (**self).on_part(what, done, total);
    }

    fn message(&mut self, text: &str) {
        (**self).message(text);
    }
}

impl<P: Progress + ?Sized> Progress for Box<P> {
    fn on_step(&mut self, report: &StepReport<'_>) {
        (**self).on_step(report);
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        (**self).on_evaluation(report);
    }

    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        (**self).on_part(what, done, total);
    }

    fn message(&mut self, text: &str) {
        (**self).message(text);
    }
}

/// Listener that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(Vec<String>);

    impl Progress for Count {
        fn on_step(&mut self, report: &StepReport<'_>) {
            self.0.push(format!("step {}", report.step));
        }

        fn message(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    fn drive(mut progress: impl Progress) {
        let report = StepReport {
            step: 3,
            steps: 10,
            loss: 1.0,
            values: &[("itc", 1.0)],
            learning_rate_factor: 1.0,
            pairs: 8,
            seconds: 0.1,
        };
        progress.on_step(&report);
        progress.on_part("evaluation", 0, 1);
        progress.message("done");
    }

    #[test]
    fn listens_through_references_and_boxes() {
        let mut count = Count::default();
        drive(&mut count);
        drive(Box::new(&mut count) as Box<dyn Progress>);
        drive(Silent);
        assert_eq!(count.0, ["step 3", "done", "step 3", "done"]);
    }
}
