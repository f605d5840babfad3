//! A cargo command run as part of the gate: shown line by line as it comes, its test results kept.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::provider::native;
use crate::run;

/// How long what was interrupted may take to end by itself.
const ENDING: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Debug, Default)]
pub struct Outcome {
    success: bool,
    /// cargo's lines `test result: …`, in their order.
    pub results: Vec<String>,
    /// Each test that ended, how, and what it took; only one test at a time has a meaningful time.
    pub tests: Vec<(String, String, Duration)>,
}

impl Outcome {
    /// That of nothing, which went well.
    pub fn none() -> Self {
        Self { success: true, ..Self::default() }
    }

    /// With what another command brought.
    pub fn add(&mut self, other: Self) {
        self.success &= other.success;
        self.results.extend(other.results);
        self.tests.extend(other.tests);
    }

    pub fn good(&self) -> bool {
        self.success
    }

    /// `: 12 passed, 0 failed`, or nothing where no test was run.
    pub fn counted(&self) -> String {
        if self.results.is_empty() {
            return String::new();
        }
        let sum = |word| self.results.iter().filter_map(|line| number_before(line, word)).sum::<u32>();
        format!(": {} passed, {} failed", sum(" passed"), sum(" failed"))
    }

    /// The tests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(|(_, how, _)| how == "FAILED").map(|(name, ..)| name.as_str())
    }

    /// Remembers a test that was left out, and why.
    pub fn leave_out(&mut self, name: String, why: &str) {
        self.tests.push((name, format!("left out: {why}"), Duration::ZERO));
    }

    fn see(&mut self, line: &str, took: Duration) {
        if line.starts_with("test result: ") {
            // A target without tests says nothing worth keeping.
            if line.contains(" 0 passed; 0 failed;") {
                return;
            }
            self.results.push(line.to_owned());
        } else if let Some((name, how)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.tests.push((name.to_owned(), how.to_owned(), took));
        }
    }
}

fn number_before(line: &str, word: &str) -> Option<u32> {
    let (before, _) = line.split_once(word)?;
    before.rsplit(' ').next()?.parse().ok()
}

/// Why no cluster can be held here; none where it can.
pub fn no_cluster_here() -> Option<String> {
    let refusal = native::require_machine().err()?.to_string();
    Some(refusal.lines().next().unwrap_or_default().to_owned())
}

/// The names of the tests that a cargo command would run.
pub fn listed(args: &[&str]) -> Result<Vec<String>> {
    let text = run::output(cargo_command().args(args).args(["--", "--list"]))?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn cargo_command() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    // Of this very program, told by the cargo that runs it: build scripts would take them for news and run again.
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in told.filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
        command.env_remove(name);
    }
    command.current_dir(crate::readme::top());
    command
}

/// Runs cargo in the top folder and shows its output as it comes.
pub fn cargo(args: &[&str], env: &[(&str, PathBuf)]) -> Result<Outcome> {
    let mut command = cargo_command();
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    let mut outcome = Outcome::default();
    let mut last = Instant::now();
    let status = stream(&mut command, |line| {
        println!("{line}");
        outcome.see(line, last.elapsed());
        last = Instant::now();
    });
    let status = status.with_context(|| format!("cargo {}", args.join(" ")))?;
    outcome.success = status.success();
    Ok(outcome)
}

/// Runs a command, its stdout line by line to `see`; stderr stays the terminal's. An interrupt ends its whole group.
pub fn stream(command: &mut Command, mut see: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let lines = lines(child.stdout.take());
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => see(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) if run::interrupted() => {
                end(&mut child)?;
                bail!("interrupted");
            }
            // Ended, though something it started still holds its stdout open.
            Err(mpsc::RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
    run::wait(&mut child)
}

/// Lines as they come, without their ends; the channel closes with the source.
pub fn lines(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let Some(source) = source else { return };
        for line in BufReader::new(source).split(b'\n') {
            let Ok(line) = line else { return };
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receive
}

/// Asks the child's group to end, and insists when it does not.
pub fn end(child: &mut Child) -> Result<()> {
    let group = Pid::from_child(child);
    // The group may have ended just now.
    let _ = kill_process_group(group, Signal::TERM);
    let start = Instant::now();
    while child.try_wait()?.is_none() && start.elapsed() < ENDING {
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn results_and_tests_are_read() {
        let mut outcome = Outcome::default();
        for line in [
            "running 2 tests",
            "test scenarios::a_story ... ok",
            "test scenarios::another ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            outcome.see(line, Duration::from_secs(1));
        }
        assert_eq!((outcome.counted().as_str(), outcome.results.len()), (": 41 passed, 1 failed", 2));
        assert_eq!(outcome.failed().collect::<Vec<_>>(), ["scenarios::another"]);
        let tests: Vec<_> = outcome.tests.iter().map(|(name, how, _)| (name.as_str(), how.as_str())).collect();
        assert_eq!(tests, [("scenarios::a_story", "ok"), ("scenarios::another", "FAILED")]);
        assert_eq!(Outcome::default().counted(), "");
    }

    #[test]
    fn a_command_is_streamed_and_its_status_kept() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two; exit 3"]);
        let status = stream(&mut command, |line| seen.push(line.to_owned())).unwrap();
        assert_eq!((status.code(), seen), (Some(3), vec!["one".to_owned(), "two".to_owned()]));
    }
}
