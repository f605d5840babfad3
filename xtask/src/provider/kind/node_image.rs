//! The image of the nodes: kind's own, or where no registry gives it one that is built here.

use std::process::Stdio;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image;
use crate::provider::docker::Docker;
use crate::{run, suite};

/// How soon a registry must have begun to give the image.
const BEGUN: Duration = Duration::from_secs(8);

/// Makes the daemon have the image for this version, and gives its name. Built ones are kept.
pub fn ensure(docker: &Docker, version: &str, install: bool) -> Result<String> {
    // In full: podman asks no registry for a short name.
    let upstream = format!("docker.io/kindest/node:{version}");
    if is_there(docker, &upstream) {
        return Ok(upstream);
    }
    if docker.is_own() {
        println!(
            "the Docker daemon has no way out of this machine: {upstream} is not pulled, an image is built instead"
        );
    } else {
        println!("pulling {upstream}");
        match pull(docker, &upstream) {
            Ok(()) => return Ok(upstream),
            Err(error) => {
                run::check()?;
                println!("{upstream} cannot be pulled ({error:#}): an image is built instead");
            }
        }
    }
    let built = image::ensure(version, install)?;
    let name = docker.client.loaded(&built.name);
    if !is_there(docker, &name) {
        println!("loading {name}");
        docker.run(&["load", "--quiet", "--input", &built.archive.display().to_string()])?;
    }
    Ok(name)
}

/// Whether the daemon has it.
pub fn is_there(docker: &Docker, name: &str) -> bool {
    docker.run(&["image", "inspect", "--format", "{{.Id}}", name]).is_ok()
}

/// Pulls an image, for as long as that takes once it has begun.
pub fn pull(docker: &Docker, name: &str) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut child = docker
        .command(&["pull", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", docker.client.name()))?;
    let lines = suite::lines(child.stdout.take());
    let errors = suite::lines(child.stderr.take());
    let start = Instant::now();
    let (mut begun, mut last) = (false, String::new());
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => begun |= is_begin(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        for line in errors.try_iter() {
            begun |= is_begin(&line);
            last = line;
        }
        if run::interrupted() || (!begun && start.elapsed() > BEGUN) {
            suite::end(&mut child)?;
            run::check()?;
            bail!("no registry has answered within {} s", BEGUN.as_secs());
        }
    }
    if run::wait(&mut child)?.success() {
        return Ok(());
    }
    let last = errors.iter().last().unwrap_or(last);
    bail!("{}", if last.is_empty() { "the pull failed" } else { last.trim() })
}

/// Whether a line of `docker pull`, or of what `podman pull` says beside, shows that the registry gives the image.
fn is_begin(line: &str) -> bool {
    ["Pulling fs layer", "Already exists", "Digest: ", "Copying blob"].iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    #[test]
    fn a_registry_that_refuses_or_says_nothing_is_given_up_soon() {
        let folder = tempfile::tempdir().unwrap();
        let refuses = "echo 'Error response from daemon: Get \"https://registry-1.docker.io/v2/\": connection refused' >&2; exit 1";
        let said = pull(&fake::docker(folder.path(), refuses), "kindest/node:v1").unwrap_err().to_string();
        assert!(said.ends_with("connection refused"), "{said}");
        let start = Instant::now();
        let said = pull(&fake::docker(folder.path(), "sleep 60"), "kindest/node:v1").unwrap_err().to_string();
        assert!(said.starts_with("no registry has answered within 8 s"), "{said}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn a_pull_has_begun_when_layers_come() {
        assert!(is_begin("b5e5a0e8a9f1: Pulling fs layer") && is_begin("Digest: sha256:7416"));
        assert!(is_begin("Copying blob b5e5a0e8a9f1 [--------------------------------------]"));
        assert!(
            !is_begin("v1.34.4: Pulling from kindest/node") && !is_begin("Trying to pull docker.io/kindest/node:v1")
        );
        assert!(!is_begin(""));
    }
}
