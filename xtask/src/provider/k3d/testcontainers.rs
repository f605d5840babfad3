//! Provider `testcontainers`: one node of k3s without kube-proxy, in a container that the library of that name starts, for a
//! quick run of the suite. A program of its own holds it (`e2e/testcontainers`), so that nobody else compiles the library;
//! the node ends with that program, and that one with us.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{MAKER as K3D, Start, config, keep_evidence_of, must_be_had};
use crate::provider::docker::nodes::Maker;
use crate::provider::docker::{self, Docker, cluster, network};
use crate::provider::native::cgroup;
use crate::provider::native::descriptor::Descriptor;
use crate::provider::native::plan::{self, ProxyMode, Request};
use crate::{readme, run, suite};

/// The provider's name in a descriptor.
pub const NAME: &str = "testcontainers";
const MAKER: Maker = Maker {
    name: NAME,
    cluster: "kubectl-bookaccess.k3s.cluster",
    role: "kubectl-bookaccess.k3s.role",
    end: "docker rm --force --volumes",
    ..K3D
};
const MANIFEST: &str = "e2e/testcontainers/Cargo.toml";
const TARGET: &str = "target/testcontainers";
/// What the program says once k3s answers.
const READY: &str = "ready";

/// Fails where the node cannot be had here.
pub fn require(version: &str, image: Option<&str>) -> Result<Docker> {
    if image.is_none() {
        config::check_version(cgroup::unified(), version)?;
    }
    // As for k3d: a daemon of our own would have no way to the image.
    let docker = docker::find(false)
        .context("NOT RUN: provider testcontainers needs a Docker daemon that reaches a registry")?;
    must_be_had(NAME, &docker, &image_of(version, image))?;
    Ok(docker)
}

fn image_of(version: &str, image: Option<&str>) -> String {
    image.map_or_else(|| config::image(version), str::to_owned)
}

/// Brings the node up and gives its description; on any failure nothing of it is left. It ends with this process.
pub fn up(request: &Request) -> Result<Descriptor> {
    plan::check_name(&request.name)?;
    ensure!(
        request.workers == 0 && request.proxy_mode == ProxyMode::None && !request.ec2 && !request.dual_stack,
        "provider testcontainers has one node without kube-proxy: leave --workers, --proxy-mode, --ec2 and --dual-stack away"
    );
    let image = request.image.as_deref();
    let docker = require(&request.version, image)?;
    let program = build()?;
    let image = image_of(&request.version, image);
    cluster::begin(&MAKER, &docker, request, keep_evidence, |places| {
        let start = Start { maker: &MAKER, docker: &docker, request, places };
        let log = places.run.join("testcontainers.log");
        start.run(false, |shared| hold(&docker, &program, &words(&request.name, &image, shared), &log))
    })
}

/// Keeps what can be learnt of a node on which something went wrong.
pub fn keep_evidence(cluster: &str) -> Result<Option<PathBuf>> {
    keep_evidence_of(&MAKER, cluster)
}

fn build() -> Result<PathBuf> {
    let folder = readme::top().join(TARGET);
    let place = folder.display().to_string();
    let built = suite::cargo(&["build", "--locked", "--manifest-path", MANIFEST, "--target-dir", &place], &[])?;
    ensure!(built.good(), "{MANIFEST} cannot be built");
    Ok(folder.join("debug/k3s-node"))
}

/// What the program is told: itself first, and behind `--` k3s.
fn words(cluster: &str, image: &str, shared: &Path) -> Vec<String> {
    let name = format!("{cluster}-server");
    let mut words = vec![format!("--image={image}"), format!("--name={name}")];
    words.push(format!("--network={}", network::nodes_network(cluster)));
    words.push(format!("--label={}={cluster}", MAKER.cluster));
    words.push(format!("--label={}={}", MAKER.role, MAKER.roles[0]));
    words.push(format!("--folder={}", shared.display()));
    words.extend(["--", "server", "--disable-kube-proxy"].map(str::to_owned));
    words.extend(config::server());
    words
}

/// Starts the program and waits until it says that k3s answers. It goes on as long as this process holds its stdin.
fn hold(docker: &Docker, program: &Path, words: &[String], log: &Path) -> Result<()> {
    let said = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    // A group of its own: Ctrl-C on this terminal is for us, who end it.
    let mut child = Command::new(program)
        .args(words)
        .envs(docker.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(said)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let lines = suite::lines(child.stdout.take());
    let begun = loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => break line,
            Err(RecvTimeoutError::Disconnected) => break String::new(),
            Err(RecvTimeoutError::Timeout) if run::interrupted() => {
                suite::end(&mut child)?;
                run::check()?;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    if begun != READY {
        run::wait(&mut child)?;
        anyhow::bail!("testcontainers did not start k3s: {}", std::fs::read_to_string(log).unwrap_or_default().trim());
    }
    // Closed by the end of this process, however it comes.
    std::mem::forget(child.stdin.take());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    #[test]
    fn the_node_is_told_apart_from_k3ds_and_has_no_kube_proxy() {
        let words = words("e2e", "rancher/k3s:v1.35.5-k3s1", Path::new("/c/client"));
        assert_eq!(
            words.join(" "),
            "--image=rancher/k3s:v1.35.5-k3s1 --name=e2e-server --network=bookaccess-e2e \
             --label=kubectl-bookaccess.k3s.cluster=e2e --label=kubectl-bookaccess.k3s.role=server --folder=/c/client \
             -- server --disable-kube-proxy --tls-san=203.0.113.10 \
             --disable=traefik,servicelb,metrics-server,local-storage --cluster-cidr=10.244.0.0/16"
        );
    }

    #[test]
    fn the_program_is_waited_for_and_holds_on() {
        let folder = tempfile::tempdir().unwrap();
        let (log, over) = (folder.path().join("log"), folder.path().join("over"));
        let script = format!("echo \"$DOCKER_HOST $*\" >&2; echo ready; cat; touch {}", over.display());
        let program = fake::program(folder.path(), "k3s-node", &script);
        hold(&fake::own(folder.path(), "true"), &program, &["--name=a".to_owned()], &log).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "unix:///own.sock --name=a\n");
        assert!(!over.exists());
        let fails = fake::program(folder.path(), "fails", "echo 'no such image' >&2; exit 1");
        let said = hold(&fake::docker(folder.path(), "true"), &fails, &[], &log).unwrap_err().to_string();
        assert_eq!(said, "testcontainers did not start k3s: no such image");
    }
}
