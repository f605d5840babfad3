//! The machine's description: figures mean nothing without it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::rows::{most_connections, most_port_forwards};
use crate::{readme, run};

/// How long [`busy`] looks.
const LOOK: Duration = Duration::from_millis(250);

/// What a cluster without load takes of the machine, and some room.
const QUIET: f64 = 0.15;
/// How long to wait for a quiet machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the machine is quiet, and gives the share that is in use then: more than that where it never was.
pub fn settled() -> Result<f64> {
    let start = Instant::now();
    loop {
        run::check()?;
        let busy = busy()?;
        if busy <= QUIET || start.elapsed() > PATIENCE {
            return Ok(busy);
        }
    }
}

/// The share of the machine that is in use now, 0 to 1.
fn busy() -> Result<f64> {
    let before = times(&fs::read_to_string("/proc/stat")?)?;
    std::thread::sleep(LOOK);
    let after = times(&fs::read_to_string("/proc/stat")?)?;
    let (all, idle) = (after.0 - before.0, after.1 - before.1);
    Ok(if all > 0 { 1.0 - idle as f64 / all as f64 } else { 0.0 })
}

/// All ticks and the idle ones (proc(5): idle and iowait are the fourth and fifth of a line's numbers).
fn times(stat: &str) -> Result<(u64, u64)> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    Ok((ticks.iter().sum(), ticks.iter().skip(3).take(2).sum()))
}

/// The most important of it, on a line.
pub fn in_short(binary: &Path) -> Result<String> {
    let machine = describe(binary)?;
    let told = ["CPU", "memory", "kernel", "commit"].iter().filter_map(|name| machine.get_key_value(*name));
    Ok(told.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(" · "))
}

/// What the figures depend on, by name.
pub fn describe(binary: &Path) -> Result<BTreeMap<String, String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or_else(|| "unknown".to_owned(), |rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let first = |argv: &[&str]| {
        let said = run::output(&mut run::command(argv)).unwrap_or_default();
        said.lines().next().unwrap_or("not there").trim().to_owned()
    };
    let cpu = after(&read("/proc/cpuinfo"), "model name");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory: f64 = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let commit = run::output(run::command(&["git", "describe", "--always", "--dirty"]).current_dir(readme::top()));
    let system = after(&read("/etc/os-release"), "PRETTY_NAME=");
    let pairs = [
        ("CPU", format!("{count} × {cpu}")),
        ("memory", format!("{:.0} GB", memory * 1024.0 / 1e9)),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("system", system.trim_matches('"').to_owned()),
        ("HAProxy", first(&["haproxy", "-v"]).replace("HAProxy version ", "").replace(" - https://haproxy.org/", "")),
        ("nft", first(&["nft", "--version"])),
        ("kubectl bookaccess", first(&[&binary.display().to_string(), "version"])),
        ("commit", commit.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())),
        ("most connections a forwarder can hold", most_connections().to_string()),
        ("most through the API server", most_port_forwards().to_string()),
    ];
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn idle_time_is_told_from_work() {
        assert_eq!(times("cpu  10 1 9 70 10 0 0 0 0 0\ncpu0 1 2 3 4\n").unwrap(), (100, 80));
        assert!(times("").is_err());
        assert!((0.0..=1.0).contains(&busy().unwrap()));
    }
}
