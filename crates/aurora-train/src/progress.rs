//! How a run tells the outside what it does. Nothing here prints: the caller decides.

use crate::metrics::TaskMetrics;

/// What is known after an optimizer step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport<'a> {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The loss that was minimized.
    pub loss: f64,
    /// Its parts and other values of this step, by name.
    pub values: &'a [(&'a str, f64)],
    /// Factor of the schedule on every learning rate.
    pub learning_rate_factor: f64,
    /// Pairs in the batch.
    pub pairs: usize,
    /// Wall time of the step in seconds.
    pub seconds: f64,
}

/// What is known after an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationReport<'a> {
    /// Steps done so far.
    pub step: u64,
    /// Which split ("validation", "test").
    pub split: &'a str,
    /// What was measured.
    pub metrics: &'a TaskMetrics,
    /// Whether it is the best of the run so far.
    pub best: bool,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// Listens to a run. Every method does nothing unless it is overridden.
pub trait Progress {
    /// An optimizer step is done.
    fn on_step(&mut self, report: &StepReport<'_>) {
        let _ = report;
    }

    /// An evaluation is done.
    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        let _ = report;
    }

    /// `done` of `total` parts of a piece of work called `what` are done (an evaluation, a
    /// download of features, ...). A piece starts with `done` = 0 and ends with `done` = `total`.
    fn on_part(&mut self, what: &str, done: u64, total: u64) {
        let _ = (what, done, total);
    }

    /// Something worth a line of text.
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

/// Listens to nothing.
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
