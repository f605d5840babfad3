//! A Snapshot as a file: whatever size it has, whatever a person did to it, and without a secret.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare fails")]

mod edited;
mod secrets;
mod size;

use std::path::PathBuf;
use std::sync::LazyLock;

use bookaccess::check;
use bookaccess::facts::Facts;
use bookaccess::model::{Finding, Snapshot};
use bookaccess::observe::file;

/// All fixtures of the checks by name, read once.
fn fixtures() -> &'static [(String, Snapshot)] {
    static FIXTURES: LazyLock<Vec<(String, Snapshot)>> = LazyLock::new(|| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/check/testdata");
        let paths = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let yaml = paths.filter(|p| p.extension().is_some_and(|e| e == "yaml"));
        let name = |p: &PathBuf| p.file_stem().unwrap().to_string_lossy().into_owned();
        let mut found: Vec<_> = yaml.map(|p| (name(&p), file::read(&p).unwrap())).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    });
    &FIXTURES
}

fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    check::run(&Facts::derive(snapshot)).findings
}
