//! The product's binary, run with an environment of its own.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command here may take longer: it is ended, and the test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// The binary with an empty home and nothing of the developer's environment.
pub struct Bin {
    home: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Bin {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With one more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Its home, where its state would lie as well.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        let mut command = self.command(args);
        finish(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// As [`Bin::run`], with a stdout whose reader has left before the start.
    pub fn run_into_closed_pipe(&self, args: &[&str]) -> Ended {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        finish(self.command(args).stdout(writer).spawn().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-bookaccess"));
        command.args(args).env_clear().current_dir(self.home()).stdin(Stdio::null()).stderr(Stdio::piped());
        command.env("HOME", self.home()).env("BOOKACCESS_STATE_DIR", self.home().join("state"));
        // A windows program does not start without it.
        command.envs(std::env::var_os("SYSTEMROOT").map(|root| ("SYSTEMROOT", root)));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn finish(mut child: Child) -> Ended {
    let start = Instant::now();
    let stdout = read(child.stdout.take());
    let stderr = read(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = start.elapsed();
    Ended { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap(), took }
}

fn read(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        source.map(|mut source| source.read_to_string(&mut text));
        text
    })
}
