//! `cargo xtask workflows`: actionlint on the files of .github/workflows.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::go_program::Program;
use crate::readme::top;
use crate::{run, suite};

const FOLDER: &str = ".github/workflows";
const ACTIONLINT: Program = Program {
    name: "actionlint",
    module: "github.com/rhysd/actionlint",
    package: "github.com/rhysd/actionlint/cmd/actionlint",
    version: "v1.7.12",
    stamp: None,
};

/// Says what actionlint finds; good where it finds nothing.
pub fn run() -> Result<ExitCode> {
    run::catch_interrupts()?;
    let actionlint = ACTIONLINT.built(|| {
        format!(
            "Go is not on PATH, and actionlint {} is not built yet\n  install Go 1.24 or later (https://go.dev/dl/) and put its bin folder on PATH",
            ACTIONLINT.version
        )
    })?;
    let files = files()?;
    let mut command = Command::new(actionlint);
    // Without the programs that it would call where they are there: everywhere it finds the same.
    command.args(["-no-color", "-shellcheck=", "-pyflakes="]).args(&files).current_dir(top());
    let status = suite::stream(&mut command, |line| println!("{line}")).context("actionlint")?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    println!("actionlint {} finds nothing in {} files", ACTIONLINT.version, files.len());
    Ok(ExitCode::SUCCESS)
}

/// The workflows, below the top folder.
fn files() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(top().join(FOLDER)).with_context(|| format!("cannot read {FOLDER}"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = Path::new(FOLDER).join(entry?.file_name());
        if path.extension().is_some_and(|end| end == "yml" || end == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Each workflow's name and text.
    fn texts() -> Vec<(String, String)> {
        let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(top().join(path)).unwrap());
        files().unwrap().into_iter().map(read).collect()
    }

    /// What follows a key on its line, with the number of spaces before it.
    fn values<'t>(text: &'t str, key: &str) -> Vec<(usize, &'t str)> {
        let of = |line: &'t str| {
            let plain = line.trim_start_matches([' ', '-']);
            let value = plain.strip_prefix(key)?.strip_prefix(':')?;
            Some((line.len() - plain.len(), value.trim()))
        };
        text.lines().filter_map(of).collect()
    }

    #[test]
    fn the_workflows_are_there() {
        let names: Vec<_> = texts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ci.yml", "e2e.yml", "release.yml"].map(|name| format!("{FOLDER}/{name}")));
    }

    #[test]
    fn every_action_is_one_commit_whose_version_is_said() {
        let mut versions = std::collections::BTreeMap::new();
        for (name, text) in texts() {
            for (_, value) in values(&text, "uses") {
                let (action, rest) = value.split_once('@').unwrap_or_else(|| panic!("{name}: {value} names no commit"));
                let (commit, version) =
                    rest.split_once(" # v").unwrap_or_else(|| panic!("{name}: {value} says no version"));
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{name}: {value}");
                assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name}: {value}");
                let first = versions.entry(action.to_owned()).or_insert_with(|| rest.to_owned());
                assert_eq!(first, rest, "{name}: {action} is used in two versions");
            }
        }
        assert!(!versions.is_empty());
    }

    #[test]
    fn nothing_has_more_rights_or_time_than_it_needs() {
        for (name, text) in texts() {
            assert!(
                text.contains("\npermissions:\n  contents: read\n"),
                "{name}: contents are not read-only by default"
            );
            let checkouts =
                values(&text, "uses").iter().filter(|(_, value)| value.starts_with("actions/checkout@")).count();
            let without = values(&text, "persist-credentials").iter().filter(|(_, value)| *value == "false").count();
            assert_eq!(checkouts, without, "{name}: a checkout keeps its credentials");
            let jobs = values(&text, "runs-on").len();
            assert!(jobs > 0 && values(&text, "timeout-minutes").len() == jobs, "{name}: a job has no timeout-minutes");
        }
    }

    #[test]
    fn the_workflows_build_with_the_oldest_rust_that_is_promised() {
        let manifest = std::fs::read_to_string(top().join("Cargo.toml")).unwrap();
        let promised = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
        for (name, text) in texts() {
            assert_eq!(values(&text, "RUST"), [(2, promised)], "{name}");
        }
    }
}
