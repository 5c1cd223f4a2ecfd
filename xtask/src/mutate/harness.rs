//! Test harness: the kernel tests over another copy of the sources.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Time limit of a test over the unmodified sources.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// Test binary of the kernels.
#[derive(Debug)]
pub struct Harness {
    binary: PathBuf,
    /// Working directory: tests expect to be run from the folder of their package.
    folder: PathBuf,
}

/// Outcome of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Passed: no bug was found.
    Passed,
    /// Failed, with its first message.
    Failed(String),
    /// Not run, since the sources did not compile; with the compiler's message.
    NotTried(String),
}

impl Harness {
    /// Builds the test binary if it has to be, and finds it.
    ///
    /// # Errors
    /// The tests do not compile.
    pub fn build(root: &Path) -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["test", "--package", "aurora-kernels", "--test", "it", "--no-run"]);
        cargo.arg("--message-format=json-render-diagnostics").current_dir(root);
        let done = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        ensure!(done.status.success(), "the tests of the kernels do not compile");
        let binary = executable(&String::from_utf8_lossy(&done.stdout))
            .context("cargo built no test binary of aurora-kernels")?;
        Ok(Self { binary, folder: root.join("crates/aurora-kernels") })
    }

    /// Tests of the module `kernels` whose names contain `filter`.
    ///
    /// # Errors
    /// There is none.
    pub fn tests(&self, filter: &str) -> Result<Vec<String>> {
        let listed = Command::new(&self.binary)
            .args([filter, "--list", "--format=terse"])
            .output()
            .context("cannot start the tests")?;
        let text = String::from_utf8_lossy(&listed.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        let names = names.filter(|name| name.starts_with("kernels::"));
        let names: Vec<_> = names.map(str::to_owned).collect();
        ensure!(!names.is_empty(), "no test of the kernels has {filter:?} in its name");
        Ok(names)
    }

    /// Runs `tests` over the sources in `kernels` until one fails; returns its name and its message. A test that takes
    /// longer than `limit` is stopped and has failed: a bug may keep it from ending.
    ///
    /// # Errors
    /// A test cannot be started, or the sources do not compile.
    pub fn first_failure(
        &self,
        tests: &[String],
        kernels: &Path,
        limit: Duration,
    ) -> Result<Option<(String, String)>> {
        for test in tests {
            match self.run(test, kernels, limit)? {
                Outcome::Passed => {}
                Outcome::Failed(words) => return Ok(Some((test.clone(), words))),
                Outcome::NotTried(words) => bail!("not tried: {words}"),
            }
        }
        Ok(None)
    }

    /// Runs one test in a process of its own, which a bug may crash.
    fn run(&self, test: &str, kernels: &Path, limit: Duration) -> Result<Outcome> {
        let scratch = tempfile::tempdir()?;
        let said = scratch.path().join("said");
        let file = File::create(&said)?;
        let mut command = Command::new(&self.binary);
        command.args(["--exact", test, "--test-threads=1", "--nocapture"]);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.env("AURORA_KERNELS", kernels).env("AURORA_EMULATOR", "required");
        command.env_remove("AURORA_MACHINE").env_remove("RUST_BACKTRACE");
        // The first failing case is enough, and no trace of it belongs in the working tree.
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
        let (out, err) = (file.try_clone()?, file);
        let mut child = command.stdout(out).stderr(err).spawn().context("cannot start a test")?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if started.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = String::from_utf8_lossy(&fs::read(&said)?).into_owned();
        Ok(judged(status.ok_or(limit), &text))
    }
}

/// Binary of the target `it` in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let parsed = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut found = parsed.filter_map(|message: serde_json::Value| {
        let of_this_target = message["target"]["name"] == "it";
        of_this_target.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    found.next_back()
}

/// Classifies an exit status, or the time after which a test was stopped, and its output.
fn judged(end: Result<ExitStatus, Duration>, text: &str) -> Outcome {
    let status = match end {
        Ok(status) => status,
        Err(limit) => return Outcome::Failed(format!("no end within {} s", limit.as_secs())),
    };
    if status.success() {
        return Outcome::Passed;
    }
    let mut lines = text.lines();
    let words = lines.find(|line| line.contains("panicked at ")).and_then(|_| lines.next());
    let Some(words) = words else {
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
        return Outcome::Failed(format!("{status}: {last}"));
    };
    // The harness's message for a source that the compiler refuses; its errors follow.
    if words.contains(" does not compile:") {
        let error = text.lines().find(|line| line.contains("error: ")).unwrap_or("");
        return Outcome::NotTried(format!("{words} {error}"));
    }
    Outcome::Failed(words.to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    const FAILED: i32 = 101 << 8;

    fn after(status: i32, text: &str) -> Outcome {
        judged(Ok(ExitStatus::from_raw(status)), text)
    }

    #[test]
    fn the_words_are_the_first_line_of_the_first_panic() {
        let text = "\nrunning 1 test\ntest norm::ragged ... \nthread 'norm::ragged' (12) panicked \
            at crates/a.rs:10:5:\ny (f32): element 3 is 1\nnote: run with\n\nthread 'x' panicked \
            at b.rs:1:1:\nTest failed\n";
        assert_eq!(after(FAILED, text), Outcome::Failed("y (f32): element 3 is 1".into()));
        assert_eq!(after(0, text), Outcome::Passed);
    }

    #[test]
    fn a_crash_or_a_test_without_an_end_is_a_failure() {
        let Outcome::Failed(words) = after(11, "running 1 test\ntest norm::ragged ...\n") else {
            panic!("a crash")
        };
        assert!(words.contains("signal: 11") && words.ends_with("ragged ..."), "{words}");
        let stopped = judged(Err(Duration::from_secs(60)), "");
        assert_eq!(stopped, Outcome::Failed("no end within 60 s".into()));
    }

    #[test]
    fn sources_that_do_not_compile_have_tried_nothing() {
        let text = "thread 'a' (1) panicked at a.rs:1:1:\n/tmp/x/norm/k.cu does not compile:\n\
            k.cu:3:1: error: 'rows' was not declared\n";
        let Outcome::NotTried(words) = after(FAILED, text) else { panic!("it was not tried") };
        assert!(words.ends_with("error: 'rows' was not declared"), "{words}");
    }

    #[test]
    fn the_binary_is_that_of_the_integration_tests() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"aurora_kernels\"},\
            \"executable\":null}\n{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\
            \"it\"},\"executable\":\"/t/it-1\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some("/t/it-1".into()));
        assert_eq!(executable("{}\n"), None);
    }
}
