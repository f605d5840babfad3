//! What a forwarder costs: CPU time and resident memory of a process and all that it started.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};

/// All processes below one, in no order.
pub fn below(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is nobody's child.
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// The fields of /proc/PID/stat from the state on (proc(5): field 3 is the first here).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also brackets.
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// CPU time of these processes and of their children that have ended, in seconds.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    // utime, stime, cutime and cstime are fields 14 to 17.
    let ticks = |pid: &u32| stat(*pid).map_or(0, |f| f[11..15].iter().filter_map(|t| t.parse::<u64>().ok()).sum());
    pids.iter().map(ticks).sum::<u64>() as f64 / clock_ticks_per_second() as f64
}

/// Resident memory of these processes, in bytes.
pub fn resident(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a process that has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        sum += kib * 1024;
    }
    Ok(sum)
}

/// Sends a signal; a process that has ended needs none.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_child_started_counts() {
        let mut shell = Command::new("sh").args(["-c", "sleep 30 & sleep 30"]).spawn().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while below(shell.id()).len() < 2 && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        let children = below(shell.id());
        assert_eq!(children.len(), 2);
        assert!(below(std::process::id()).contains(&children[0]));
        assert!(resident(&[shell.id()]).unwrap() > 100_000);
        children.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        shell.wait().unwrap();
    }

    #[test]
    fn time_is_counted() {
        let start = cpu_seconds(&[std::process::id()]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while cpu_seconds(&[std::process::id()]) < start + 0.05 {
            assert!(std::time::Instant::now() < end, "no CPU time in 20 s of work");
        }
    }
}
