//! Other programs, run so that an interrupt ends them too, and waits that are conditions with a deadline.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

static INTERRUPT: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on Ctrl-C, SIGTERM and SIGHUP no longer end this process but make [`check`] fail, so that what was
/// started is taken down on the way out.
pub fn catch_interrupts() -> Result<()> {
    let flag = INTERRUPT.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot catch signals")?;
    }
    Ok(())
}

/// True after an interrupt that [`catch_interrupts`] caught.
pub fn interrupted() -> bool {
    INTERRUPT.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Takes an interrupt as seen, and says whether there was one: the clean-up after it has waits of its own.
pub fn forget_interrupt() -> bool {
    INTERRUPT.get().is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
}

/// Makes [`interrupted`] true again after a clean-up.
pub fn remember_interrupt() {
    if let Some(flag) = INTERRUPT.get() {
        flag.store(true, Ordering::Relaxed);
    }
}

/// Fails after an interrupt.
pub fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Polls `probe` until it gives a value; fails at the deadline (with what it said last) and on an interrupt.
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        check()?;
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => {
                return Err(error.context(format!("{what}: not after {} s", deadline.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A command from an argv.
pub fn command<S: AsRef<OsStr>>(argv: &[S]) -> Command {
    let mut command = Command::new(argv.first().map_or(OsStr::new(""), AsRef::as_ref));
    command.args(argv.iter().skip(1));
    command
}

/// How a command is shown in a message.
pub fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let text = words.join(" ");
    if text.chars().count() > 300 { text.chars().take(300).chain("…".chars()).collect() } else { text }
}

/// Runs a command to its end and gives its stdout; its stderr is in the error when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    feed(command, "")
}

/// As [`output`], for a command that may hang: at the limit it is ended, and that is its failure.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<String> {
    let text = shown(command);
    feed_within(command, "", Some(limit)).with_context(|| format!("`{text}`"))
}

/// As [`output`], with `input` on its stdin.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    feed_within(command, input, None)
}

fn feed_within(command: &mut Command, input: &str, limit: Option<Duration>) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let text = shown(command);
    let mut child = command
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let stdin = child.stdin.take();
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A child that does not read its input closes the pipe: its exit code says what is wrong.
            let _ = stdin.write_all(input.as_bytes());
        }
    });
    let status = wait_within(&mut child, limit);
    let _ = writer.join();
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let status = status?;
    if !status.success() {
        let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
        bail!("`{text}` failed ({status}): {said}");
    }
    Ok(stdout)
}

/// Waits for a child that leads its own process group; on an interrupt the group is ended.
pub fn wait(child: &mut Child) -> Result<std::process::ExitStatus> {
    wait_within(child, None)
}

fn wait_within(child: &mut Child, limit: Option<Duration>) -> Result<std::process::ExitStatus> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let late = limit.filter(|limit| start.elapsed() > *limit);
        if interrupted() || late.is_some() {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                let _ = kill_process_group(group, Signal::TERM);
                std::thread::sleep(Duration::from_millis(100));
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            match late {
                Some(limit) => bail!("no answer within {} s", limit.as_secs()),
                None => bail!("interrupted"),
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn reader(source: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs the jobs at the same time and gives the first error, after all have ended.
pub fn parallel<'scope>(jobs: Vec<Box<dyn FnOnce() -> Result<()> + Send + 'scope>>) -> Result<()> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        let mut first = Ok(());
        for handle in handles {
            let result = handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a part of the start panicked")));
            if first.is_ok() {
                first = result;
            }
        }
        first
    })
}
