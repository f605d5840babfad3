//! What is kept of a cluster on which something went wrong: kind's own logs, the objects, and our own Snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::{ADMIN, KIND_LABEL, command, host, program};
use crate::provider::docker::{self, Docker};
use crate::provider::native::build::cache_folder;
use crate::run;

/// What one look may take.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps it in a folder of the cache, in the place of an earlier one's. None where no node is there.
pub fn keep(cluster: &str) -> Result<Option<PathBuf>> {
    let folder = cache_folder()?.join(format!("failed-{cluster}"));
    for docker in docker::reachable() {
        let label = format!("label={KIND_LABEL}={cluster}");
        let nodes = docker.lines(&["ps", "--all", "--format", "{{.Names}}", "--filter", &label])?;
        let Some(first) = nodes.iter().find(|name| name.ends_with("-control-plane")) else { continue };
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        // Each says what it could not learn: what went wrong comes first.
        said(logs(&docker, cluster, &folder), &folder.join("kind.txt"))?;
        said(state(&docker, first), &folder.join("state.txt"))?;
        said(snapshot(&docker, first), &folder.join("snapshot.json"))?;
        return Ok(Some(folder));
    }
    Ok(None)
}

fn said(result: Result<String>, file: &Path) -> Result<()> {
    Ok(fs::write(file, result.unwrap_or_else(|error| format!("{error:#}\n")))?)
}

/// `kind export logs`.
fn logs(docker: &Docker, cluster: &str, folder: &Path) -> Result<String> {
    let kind = program::ensure(host().release().version)?;
    let mut command = command(docker, &kind, cluster)?;
    command.args(["export", "logs", "--name", cluster]).arg(folder.join("kind"));
    run::output_within(&mut command, LOOK)
}

fn state(docker: &Docker, node: &str) -> Result<String> {
    let mut text = String::new();
    for what in [&["nodes,services,endpointslices,pods"][..], &["events", "--sort-by=.lastTimestamp"]] {
        let words =
            [&["kubectl", ADMIN, "--request-timeout=10s", "get", "--all-namespaces", "-o", "wide"], what].concat();
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
