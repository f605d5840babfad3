//! The machine's description: figures mean nothing without it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::rows::most_connections;
use crate::{readme, run};

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
    ];
    Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
