//! What is kept of a cluster on which something went wrong: its maker's logs, the objects, and our own Snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::nodes::Maker;
use super::{Docker, reachable};
use crate::provider::native::build::cache_folder;

/// What one look may take.
pub const LOOK: Duration = Duration::from_secs(60);

/// Keeps it in a folder of the cache, in the place of an earlier one's. `kubectl` are the administrator's words on the
/// control plane; `logs` writes into the folder, or gives text. None where no node is there.
pub fn keep(
    maker: &Maker,
    kubectl: &[&str],
    cluster: &str,
    logs: impl Fn(&Docker, &Path) -> Result<String>,
) -> Result<Option<PathBuf>> {
    let folder = cache_folder()?.join(format!("failed-{cluster}"));
    for docker in reachable() {
        let nodes = maker.containers(&docker, cluster, Some(maker.roles[0]))?;
        let Some(first) = nodes.first() else { continue };
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        // Each says what it could not learn: what went wrong comes first.
        said(logs(&docker, &folder), &folder.join(format!("{}.txt", maker.name)))?;
        said(state(&docker, first, kubectl), &folder.join("state.txt"))?;
        said(snapshot(&docker, first), &folder.join("snapshot.json"))?;
        return Ok(Some(folder));
    }
    Ok(None)
}

fn said(result: Result<String>, file: &Path) -> Result<()> {
    Ok(fs::write(file, result.unwrap_or_else(|error| format!("{error:#}\n")))?)
}

fn state(docker: &Docker, node: &str, kubectl: &[&str]) -> Result<String> {
    let mut text = String::new();
    for what in [&["nodes,services,endpointslices,pods"][..], &["events", "--sort-by=.lastTimestamp"]] {
        let words = [kubectl, &["--request-timeout=10s", "get", "--all-namespaces", "-o", "wide"], what].concat();
        text.push_str(&docker.exec(node, &words).unwrap_or_else(|error| format!("{error:#}\n")));
        text.push('\n');
    }
    Ok(text)
}

/// `diagnose --save`, where the suite has put the program there.
fn snapshot(docker: &Docker, node: &str) -> Result<String> {
    let line = format!(
        "{}/kubectl-bookaccess diagnose --save /tmp/snapshot.json >/dev/null; cat /tmp/snapshot.json",
        e2e::plugin::FOLDER
    );
    docker.exec(node, &["sh", "-c", &line])
}
