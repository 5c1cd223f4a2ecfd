//! Worker process that is timed: JSON lines out, a word a line in.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Worker that is ready. It is killed if nobody ends it.
pub(crate) struct Worker {
    what: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker, waits until it is ready and returns its first message.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<(Self, Value)> {
        let what = format!("{command:?}");
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().with_context(|| format!("start {what}"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{what} has no pipes");
        };
        let mut worker = Self { what, child, input, output: BufReader::new(output) };
        let ready = worker.line()?;
        ensure!(ready["ready"] == true, "{} said {ready}", worker.what);
        Ok((worker, ready))
    }

    /// Runs once and returns the seconds.
    pub(crate) fn run(&mut self) -> anyhow::Result<f64> {
        let line = self.run_saying()?;
        line["seconds"].as_f64().with_context(|| format!("{} said {line}", self.what))
    }

    /// Runs once and returns everything that the worker reports.
    pub(crate) fn run_saying(&mut self) -> anyhow::Result<Value> {
        self.say("run")?;
        self.line()
    }

    /// Ends the worker and returns its peak memory in bytes.
    pub(crate) fn end(mut self) -> anyhow::Result<u64> {
        self.say("end")?;
        let line = self.line()?;
        let peak = line["peak_bytes"].as_u64();
        let status = self.child.wait()?;
        ensure!(status.success(), "{} failed: {status}", self.what);
        peak.with_context(|| format!("{} said {line}", self.what))
    }

    fn say(&mut self, word: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{word}").with_context(|| format!("{} is gone", self.what))
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} ended early: {}; what it printed says why", self.what, self.child.wait()?);
        }
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.what))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command and returns the one line that it prints.
pub(crate) fn answer(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("{command:?} said {text}"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_worker_runs_when_told_and_says_its_peak() {
        let script = r#"echo '{"ready":true,"operations":7}'; while read word; do
            if [ "$word" = run ]; then echo '{"seconds":0.5}'; else break; fi; done
            echo '{"peak_bytes":1024}'"#;
        let (mut worker, ready) = Worker::start(&mut shell(script)).unwrap();
        assert_eq!(ready["operations"], 7);
        assert_eq!([worker.run().unwrap(), worker.run().unwrap()], [0.5, 0.5]);
        assert_eq!(worker.end().unwrap(), 1024);
    }

    #[test]
    fn a_worker_that_ends_early_is_an_error() {
        let Err(error) = Worker::start(&mut shell("exit 3")) else { panic!("it did not fail") };
        assert!(error.to_string().contains("ended early"), "{error}");
        let error = answer(&mut shell("echo '{}'; exit 3")).unwrap_err();
        assert!(error.to_string().contains("failed"), "{error}");
    }
}
