//! The members that run, found by what the kernel says and not by what a file remembers.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::member::READY;
use super::{MEMBER_COMMAND, cgroup};

/// A member's first process, as this machine numbers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub cluster: String,
    pub member: String,
    pub pid: u32,
}

impl Running {
    /// Runs what follows in the member, ends it when the caller is killed, and gives it the member's home.
    pub fn enter(&self) -> Vec<String> {
        let mut argv = self.nsenter();
        argv.extend(["setpriv", "--pdeathsig", "KILL", "env", "HOME=/root"].map(String::from));
        argv
    }

    /// Runs what follows in the member.
    pub fn nsenter(&self) -> Vec<String> {
        let mut argv = vec!["nsenter".to_owned(), format!("--target={}", self.pid)];
        argv.extend(["--mount", "--net", "--pid", "--uts", "--ipc", "--"].map(String::from));
        argv
    }

    /// A command in the member.
    pub fn command<S: AsRef<str>>(&self, argv: &[S]) -> Command {
        let mut all = self.enter();
        all.extend(argv.iter().map(|a| a.as_ref().to_owned()));
        crate::run::command(&all)
    }

    /// Runs a command in the member to its end.
    pub fn run<S: AsRef<str>>(&self, argv: &[S]) -> Result<String> {
        crate::run::output(&mut self.command(argv)).with_context(|| format!("on {}", self.member))
    }

    /// As [`Self::run`], with input.
    pub fn feed<S: AsRef<str>>(&self, argv: &[S], input: &str) -> Result<String> {
        crate::run::feed(&mut self.command(argv), input).with_context(|| format!("on {}", self.member))
    }

    /// A path of the member as this machine sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(inside.trim_start_matches('/'))
    }

    /// Starts a program that stays, as a child of the member's first process, with its own log. `env` are NAME=VALUE.
    pub fn daemon(&self, log: &Path, env: &[String], argv: &[String]) -> Result<()> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = fs::File::create(log)?;
        let mut all = self.nsenter();
        all.extend(["setsid", "--fork", "env", "HOME=/root"].map(String::from));
        all.extend_from_slice(env);
        all.extend_from_slice(argv);
        let status = crate::run::command(&all)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .context("cannot start nsenter")?;
        if !status.success() {
            bail!("cannot start {} on {}", argv.first().map_or("", String::as_str), self.member);
        }
        Ok(())
    }
}

/// How a member is started.
pub struct Start<'a> {
    pub cluster: &'a str,
    pub member: &'a str,
    pub data: &'a Path,
    pub log: &'a Path,
    pub args: Vec<String>,
}

/// Starts a member's first process in namespaces of its own and waits until its view is complete.
pub fn start(start: &Start<'_>) -> Result<Running> {
    if let Some(folder) = start.log.parent() {
        fs::create_dir_all(folder)?;
    }
    let words = [MEMBER_COMMAND, "--cluster", start.cluster, "--member", start.member, "--data"].map(OsString::from);
    let rest = start.args.iter().map(OsString::from);
    let words: Vec<_> = words.into_iter().chain([start.data.into()]).chain(rest).collect();
    let (mut child, said) = apart(&["--uts", "--ipc"], &words, fs::File::create(start.log)?)?;
    if said != READY {
        let _ = child.wait();
        let said = fs::read_to_string(start.log).unwrap_or_default();
        bail!("{} did not start: {}", start.member, said.trim());
    }
    // The child is meant to outlive this process; `down` finds it by its command line.
    members(Some(start.cluster))
        .into_iter()
        .find(|r| r.member == start.member)
        .with_context(|| format!("{} ended right after its start", start.member))
}

/// Starts this very program as the first process of PID, mount and network namespaces of its own, and of these others, and
/// gives the first line that it says. It ends by itself alone.
pub fn apart(others: &[&str], words: &[OsString], log: fs::File) -> Result<(Child, String)> {
    // A session of its own: Ctrl-C on this terminal is for the command, not for what it has started.
    let mut child = Command::new("setsid")
        .args(["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net"])
        .args(others)
        .args(["--propagation", "private"])
        .arg(std::env::current_exe().context("cannot find this program's own file")?)
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start setsid and unshare (package util-linux)")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    Ok((child, line.trim().to_owned()))
}

/// The running members of one cluster, or of all.
pub fn members(cluster: Option<&str>) -> Vec<Running> {
    let mut found: Vec<Running> = pids()
        .into_iter()
        .filter_map(|pid| {
            let running = parse(pid, &cmdline(pid))?;
            cluster.is_none_or(|c| c == running.cluster).then_some(running)
        })
        .collect();
    found.sort_by(|a, b| (&a.cluster, &a.member).cmp(&(&b.cluster, &b.member)));
    found
}

/// Reads a member's command line; the `unshare` above it has the same words behind its own name.
fn parse(pid: u32, argv: &[String]) -> Option<Running> {
    if argv.get(1)? != MEMBER_COMMAND {
        return None;
    }
    let value = |flag: &str| {
        let at = argv.iter().position(|a| a == flag)?;
        argv.get(at + 1).cloned()
    };
    Some(Running { cluster: value("--cluster")?, member: value("--member")?, pid })
}

fn cmdline(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn pids() -> Vec<u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The namespaces of a process that nobody outside its member shares.
fn namespaces(pid: u32) -> BTreeSet<String> {
    ["net", "mnt", "pid"]
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

/// Kills these members with all that runs in them, and waits until the kernel has no process of theirs.
pub fn end(cluster: &str, which: &[Running]) -> Result<()> {
    let own = namespaces(std::process::id());
    let theirs: BTreeSet<String> = which.iter().flat_map(|r| namespaces(r.pid)).filter(|n| !own.contains(n)).collect();
    let names: BTreeSet<&str> = which.iter().map(|r| r.member.as_str()).collect();
    let all = members(Some(cluster)).iter().all(|r| names.contains(r.member.as_str()));
    crate::run::wait_for("ending the cluster's processes", std::time::Duration::from_secs(30), || {
        let mut left: BTreeSet<u32> = pids()
            .into_iter()
            .filter(|pid| {
                let mine = namespaces(*pid);
                mine.iter().any(|n| theirs.contains(n))
                    || starter_of(cluster, &cmdline(*pid)).is_some_and(|m| all || names.contains(m.as_str()))
            })
            .collect();
        if all {
            left.extend(cgroup::processes(cluster));
        }
        left.remove(&std::process::id());
        for pid in &left {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        bail!("still there: {left:?}")
    })
}

/// The member that a `setsid`, `unshare` or first process with this command line is about to be.
fn starter_of(cluster: &str, argv: &[String]) -> Option<String> {
    let at = argv.iter().position(|a| a == MEMBER_COMMAND)?;
    if at > 12 {
        return None;
    }
    match argv.get(at + 1..at + 5)? {
        [a, b, c, d] if a == "--cluster" && b == cluster && c == "--member" => Some(d.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    #[test]
    fn a_member_is_known_by_its_command_line() {
        let own = words("/t/xtask cluster-member --cluster a --member w1 --data /d");
        assert_eq!(parse(7, &own), Some(Running { cluster: "a".into(), member: "w1".into(), pid: 7 }));
        let above = words("unshare --fork --net /t/xtask cluster-member --cluster a --member w1 --data /d");
        assert_eq!(parse(7, &above), None);
        assert_eq!(starter_of("a", &above), Some("w1".into()));
        assert_eq!(starter_of("b", &above), None);
        assert_eq!(parse(7, &words("bash")), None);
        assert_eq!(starter_of("a", &words("vim cluster-member")), None);
    }
}
