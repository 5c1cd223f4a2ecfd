//! Interrupted and resumed runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use aurora_data::SkipLog;
use aurora_train::config::{Config, RunConfig, Task};
use aurora_train::pipeline::{Inputs, TrainingCheckpoint, TuningResult, resume, tune};
use aurora_train::progress::{EvaluationReport, Progress, Silent, StepReport};
use aurora_train::run::RunFolder;

use super::{drawings, inputs, metrics, questions};

pub const STEPS: u64 = 8;

pub fn config(task: Task, settings: &[&str]) -> Config {
    let base = [
        "data.batch_size=4",
        "schedule.eval_every=3",
        "schedule.warmup_steps=2",
        "adapter.rank=4",
        "adapter.rank_dropout=0.25",
        "retrieval.queue_size=10",
        "retrieval.learn_temperature=true",
        "retrieval.alpha_warmup_steps=5",
        "retrieval.itm_pairs=3",
        "checkpoint.every=1",
        "checkpoint.keep_last=2",
    ];
    let own = [format!("schedule.steps={STEPS}"), format!("task={}", task.name())];
    let own = own.iter().map(String::as_str);
    let settings: Vec<&str> =
        base.iter().copied().chain(own).chain(settings.iter().copied()).collect();
    Config::resolve(None, &settings).unwrap()
}

/// Eleven samples, so that batches of four cut epochs in the middle of an evaluation's interval.
pub fn fresh(task: Task) -> Inputs {
    let samples = match task {
        Task::Retrieval => drawings(11),
        Task::Vqa => questions(11),
    };
    inputs(task, samples, SkipLog::default())
}

/// Simulated crash after so many steps: between a step and anything that follows it.
pub struct Cut {
    pub after: u64,
    /// True to crash in the evaluation that follows the step.
    pub in_evaluation: bool,
}

impl Progress for Cut {
    fn on_step(&mut self, report: &StepReport<'_>) {
        if report.step == self.after && !self.in_evaluation {
            resume_unwind(Box::new("cut"));
        }
    }

    fn on_evaluation(&mut self, report: &EvaluationReport<'_>) {
        if report.step >= self.after {
            resume_unwind(Box::new("cut"));
        }
    }
}

/// Runs `work` on a thread pool of this size.
pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Starts or resumes a run, until it is interrupted or finished.
pub fn go(
    folder: &Path,
    config: &Config,
    inputs: &Inputs,
    cut: Option<Cut>,
) -> Option<TuningResult> {
    let mut silent = Silent;
    let mut cut = cut;
    let progress: &mut dyn Progress = match &mut cut {
        Some(cut) => cut,
        None => &mut silent,
    };
    let done = catch_unwind(AssertUnwindSafe(|| match folder.join("config.toml").exists() {
        false => tune(config, inputs, &RunFolder::create(folder).unwrap(), progress),
        true => {
            let run = RunFolder::open(folder).unwrap();
            let saved = TrainingCheckpoint::newest(&run).unwrap();
            resume(config, inputs, &run, saved, progress)
        }
    }));
    done.ok().map(Result::unwrap)
}

/// Results of a run folder, without times.
pub fn left(folder: &Path) -> (Vec<serde_json::Value>, Vec<u8>, String, serde_json::Value) {
    let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut summary: serde_json::Value = serde_json::from_str(&file("summary.json")).unwrap();
    assert!(summary.as_object_mut().unwrap().remove("seconds").unwrap().as_f64().unwrap() > 0.0);
    let adapter = std::fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
    assert!(!folder.join("checkpoints").exists(), "a run at its end needs none");
    (metrics(folder), adapter, file("adapter/README.md"), summary)
}

pub fn uncut(task: Task, settings: &[&str]) -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    // Without checkpoints, which make no difference to the results.
    let never: Vec<&str> =
        settings.iter().copied().chain(["checkpoint.every=0", "data.num_workers=1"]).collect();
    let path = folder.path().join("whole");
    on_threads(1, || go(&path, &config(task, &never), &fresh(task), None)).unwrap();
    (folder, config(task, settings))
}

/// Run interrupted after step 5, with the checkpoints after steps 3 and 4.
pub fn cut_off() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = config(Task::Retrieval, &[]);
    let cut = Cut { after: 5, in_evaluation: false };
    assert!(go(&path, &config, &fresh(Task::Retrieval), Some(cut)).is_none());
    (folder, path)
}
