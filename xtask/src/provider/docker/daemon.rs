//! A Docker daemon of our own, where the machine has none: started for a run and stopped after it.
//!
//! Its first process has PID, mount and network namespaces of its own, and all that it runs descends from it: containers,
//! their mounts and their network end with it. The network namespace has no link to anywhere, so no packet of a container
//! leaves the machine, and rules and settings of the machine's own network stay as they are. What is left on the machine is
//! a folder in the cache (images, so that the next run need not load them) and, while it runs, one cgroup.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use serde_json::json;

use crate::provider::native::{build, cgroup, member, processes::apart};
use crate::run;

/// The hidden subcommand of the first process; the daemon is found by it.
pub const COMMAND: &str = "docker-daemon";
/// Said on stdout when the namespaces are as they shall be and dockerd was started.
const READY: &str = "ready";
/// The cgroup of all containers, in every hierarchy.
const CGROUP: &str = "kubectl-bookaccess-docker";
/// How long dockerd may take to begin or to end.
const STARTING: Duration = Duration::from_secs(60);
const ENDING: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Args {
    /// Where the daemon keeps its images and its socket
    #[arg(long)]
    folder: PathBuf,
}

/// Where it keeps its images, its log and its socket.
fn folder() -> Result<PathBuf> {
    Ok(build::cache_folder()?.join("docker"))
}

/// Where it listens.
pub fn socket() -> Result<PathBuf> {
    Ok(folder()?.join("docker.sock"))
}

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Starts it and waits until it answers.
pub fn start() -> Result<()> {
    let folder = folder()?;
    remove_leftovers(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("daemon.json"), configuration(&folder).to_string())?;
    let log = folder.join("dockerd.log");
    let said = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let words = [COMMAND, "--folder"].map(OsString::from).into_iter().chain([folder.clone().into()]);
    let (mut child, begun) = apart(&[], &words.collect::<Vec<_>>(), said)?;
    let explained = |error: anyhow::Error| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        error.context(format!(
            "dockerd said last ({}):\n{}",
            log.display(),
            lines[lines.len().saturating_sub(5)..].join("\n")
        ))
    };
    let answers = || -> Result<()> {
        if processes()?.is_empty() {
            bail!("it has ended");
        }
        std::os::unix::net::UnixStream::connect(socket()?).map(drop).context("its socket")
    };
    let started = if begun == READY {
        run::wait_for("the start of a Docker daemon of our own", STARTING, || match answers() {
            Err(error) if processes()?.is_empty() => Ok(Err(error)),
            Err(error) => Err(error),
            Ok(()) => Ok(Ok(())),
        })
        .and_then(|ended| ended)
    } else {
        Err(anyhow::anyhow!("a Docker daemon of our own did not start"))
    };
    if let Err(error) = started {
        let error = explained(error);
        let interrupted = run::forget_interrupt();
        let stopped = stop();
        if interrupted {
            run::remember_interrupt();
        }
        let _ = child.try_wait();
        return Err(match stopped {
            Ok(()) => error,
            Err(left) => error.context(format!("and it cannot be stopped: {left:#}")),
        });
    }
    Ok(())
}

/// No bridge and no rules of its own: networks are made for clusters, and nothing is to be translated. Without
/// CAP_SYS_RESOURCE it may not ask for a better score than its parent's.
fn configuration(folder: &Path) -> serde_json::Value {
    json!({
        "hosts": [format!("unix://{}", folder.join("docker.sock").display())],
        "data-root": data(folder),
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "bridge": "none",
        "iptables": false,
        "ip6tables": false,
        "ip-masq": false,
        "cgroup-parent": format!("/{CGROUP}"),
        "oom-score-adjust": 0,
        "log-level": "warn",
        "log-driver": "json-file",
        "log-opts": { "max-size": "10m" },
    })
}

/// Ends it with all that it runs. Where it could not put its house in order its images are thrown away: another one would
/// take what it finds for containers that run.
pub fn stop() -> Result<()> {
    let folder = folder()?;
    signal(Signal::TERM)?;
    let ended = run::wait_for("the end of the Docker daemon", ENDING, ended);
    if ended.is_err() {
        signal(Signal::KILL)?;
        run::wait_for("the end of the killed Docker daemon", ENDING, self::ended)?;
    }
    remove_leftovers(&folder)
}

fn ended() -> Result<()> {
    let left = processes()?;
    if left.is_empty() {
        return Ok(());
    }
    bail!("still there: {left:?}")
}

fn signal(signal: Signal) -> Result<()> {
    for pid in processes()? {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            // It may have ended just now.
            let _ = kill_process(pid, signal);
        }
    }
    Ok(())
}

fn remove_leftovers(folder: &Path) -> Result<()> {
    cgroup::remove_below(CGROUP)?;
    let data = data(folder);
    if fs::read_dir(data.join("containers")).is_ok_and(|mut entries| entries.next().is_some()) {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    // Of one that was killed: a file that nobody listens at.
    match fs::remove_file(folder.join("docker.sock")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the socket's file"),
        _ => Ok(()),
    }
}

/// Removes what one that was killed left; nothing while it runs.
pub fn clean() -> Result<()> {
    if processes()?.is_empty() { remove_leftovers(&folder()?) } else { Ok(()) }
}

/// The first process of the one that runs, as this machine numbers it.
pub fn processes() -> Result<Vec<u32>> {
    let folder = folder()?.display().to_string();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter(|pid| is_first(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), &folder)).collect())
}

/// Reads a command line; `setsid` and `unshare` above it have the same words behind their own names.
fn is_first(cmdline: &[u8], folder: &str) -> bool {
    let words: Vec<_> = cmdline.split(|byte| *byte == 0).collect();
    matches!(words.as_slice(), [_, command, flag, place, ..]
        if *command == COMMAND.as_bytes() && *flag == b"--folder" && *place == folder.as_bytes())
}

/// The first process: makes its namespaces' view, starts dockerd, reaps, and ends with it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGCHLD, signal_hook::consts::SIGTERM])?;
    view(&args.folder).context("the Docker daemon's private view of the machine")?;
    let config = args.folder.join("daemon.json");
    let dockerd = Command::new("dockerd").arg("--config-file").arg(config).stdout(Stdio::null()).spawn();
    let dockerd = dockerd.context("cannot start dockerd (package docker.io)")?.id();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    for signal in signals.forever() {
        if signal == signal_hook::consts::SIGTERM
            && let Some(pid) = Pid::from_raw(dockerd.cast_signed())
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        while let Ok(Some((pid, _))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid.as_raw_nonzero().get().cast_unsigned() == dockerd {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A /proc and a /sys of its namespaces, and a /run that ends with it.
fn view(folder: &Path) -> Result<()> {
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("/proc")?;
    member::fresh_sysfs(folder)?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755")).context("/run")?;
    run::output(&mut run::command(&["ip", "link", "set", "lo", "up"]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_is_known_by_its_command_line() {
        let line = |words: &[&str]| words.join("\0").into_bytes();
        let own = [COMMAND, "--folder", "/c/docker"];
        assert!(is_first(&line(&[&["/t/xtask"], &own[..]].concat()), "/c/docker"));
        assert!(!is_first(&line(&[&["/t/xtask"], &own[..]].concat()), "/other/docker"));
        assert!(!is_first(&line(&[&["unshare", "--fork", "/t/xtask"], &own[..]].concat()), "/c/docker"));
        assert!(!is_first(b"", "/c/docker"));
    }

    #[test]
    fn nothing_of_it_lies_outside_its_folder_and_its_own_run() {
        let text = configuration(Path::new("/c/docker")).to_string();
        for word in ["unix:///c/docker/docker.sock", "/c/docker/data", "/run/docker", "\"iptables\":false"] {
            assert!(text.contains(word), "{text}");
        }
    }
}
