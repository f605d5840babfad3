//! Provider `kind`: the nodes are containers that the `kind` command makes, of Docker or podman, reached by their `exec`.

pub mod config;
pub mod image;
pub mod node_image;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::docker::around::{self, Around, READY};
use super::docker::nodes::Maker;
use super::docker::{self, Client, Docker, cluster, evidence, network, stand_in};
use super::native::descriptor::{Descriptor, Node};
use super::native::plan::{self, POD_RANGE, Places, ProxyMode, Request};
use super::native::{cgroup, limits, node::CONTAINERD_SOCKET};
use crate::go_program::Program;
use crate::run;
use config::Host;

/// The provider's name in a descriptor.
pub const NAME: &str = "kind";
/// By this variable kind is told what holds the nodes.
const ENGINE: &str = "KIND_EXPERIMENTAL_PROVIDER";
/// How its nodes are known.
const MAKER: Maker = Maker {
    name: NAME,
    cluster: "io.x-k8s.kind.cluster",
    role: "io.x-k8s.kind.role",
    roles: ["control-plane", "worker"],
    end: "kind delete cluster --name",
    containerd_socket: CONTAINERD_SOCKET,
};
/// Where kubeadm leaves the administrator's kubeconfig on the control plane.
const ADMIN: &str = "--kubeconfig=/etc/kubernetes/admin.conf";

/// What this machine is like.
pub fn host() -> Host {
    Host { cgroup_v2: cgroup::unified(), sys_resource: !stand_in::is_needed() }
}

/// Brings a cluster up and gives its description; on any failure nothing of it is left.
pub fn up(request: Request, install: bool) -> Result<Descriptor> {
    plan::check_name(&request.name)?;
    let host = host();
    config::check_version(host, &request.version)?;
    if request.ec2 || request.dual_stack {
        bail!("provider kind has neither --ec2 nor --dual-stack: use --provider native");
    }
    run::catch_interrupts()?;
    let docker = engine(install)?;
    cluster::begin(&MAKER, &docker, &request, keep_evidence, |places| {
        Start { docker: &docker, host, request: &request, places }.run(install)
    })
}

/// Fails where kind has no such version here, or no daemon answers and none may be started. Starts nothing.
pub fn require(version: &str, install: bool) -> Result<()> {
    config::check_version(host(), version)?;
    if docker::may_start(install) { Ok(()) } else { engine(false).map(drop) }
}

/// What holds the nodes: Docker, or podman where kind's users tell kind so, or where no Docker answers.
fn engine(install: bool) -> Result<Docker> {
    let told = std::env::var(ENGINE).unwrap_or_default();
    match told.as_str() {
        "docker" => docker::find(install),
        "podman" => docker::podman().with_context(|| format!("{ENGINE} is podman")),
        "" => docker::find(install).or_else(|refusal| {
            run::check()?;
            let podman = docker::podman().map_err(|_| refusal)?;
            println!("no Docker daemon answers: podman holds the nodes");
            Ok(podman)
        }),
        other => bail!(
            "{ENGINE} is {other}: nodes are held by docker or podman (with nerdctl kind lets nobody choose the nodes' network)"
        ),
    }
}

/// A cluster that is being made.
struct Start<'s> {
    docker: &'s Docker,
    host: Host,
    request: &'s Request,
    places: &'s Places,
}

impl Start<'_> {
    fn run(&self, install: bool) -> Result<Descriptor> {
        let (docker, request) = (self.docker, self.request);
        let kind = program(self.host).ensure()?;
        let image = node_image::ensure(docker, &request.version, install)?;
        limits::check(&limits::KIND, usize::from(request.workers) + 1)?;
        let clock = Instant::now();
        let step = |what: &str| println!("  {:5.1} s  {what}", clock.elapsed().as_secs_f32());
        let around = Around::prepare(docker, request, self.places, &image, install, &step)?;
        self.create(&kind, &image, &around.shared)?;
        step("kind has made the nodes");
        let nodes = MAKER.nodes(docker, &request.name, &network::nodes_network(&request.name))?;
        let first = nodes.first().filter(|node| node.control_plane).context("kind made no control plane")?;
        around.translate(first)?;
        self.settle(&around, first, &nodes)?;
        step("nodes connected, images imported");
        self.wait_until_ready(first, &nodes)?;
        // A node image of ours leads what no node has to nowhere. Here the gateway refuses it, as a network's router does,
        // and a route that a fault takes away must not have another behind it.
        docker.on_each(&nodes, &format!("ip route del blackhole {POD_RANGE} 2>/dev/null || true"))?;
        step("nodes and add-ons ready");
        let first = first.clone();
        around.describe(NAME, nodes, |args| self.kubectl(&first, args))
    }

    fn create(&self, kind: &Path, image: &str, shared: &Path) -> Result<()> {
        let wanted =
            config::Wanted { image, workers: self.request.workers, proxy_mode: self.request.proxy_mode, shared };
        let file = cluster::config_file(self.places, &config::cluster(self.host, &wanted))?;
        let mut command = command(self.docker, kind, &self.request.name)?;
        command.args(["create", "cluster", "--retain", "--name", &self.request.name, "--config"]).arg(file.path());
        // Never the user's own.
        command.arg("--kubeconfig").arg(self.places.data.join("kubeconfig"));
        run::output(&mut command).map(drop).map_err(|error| self.docker.explained(error))
    }

    /// What the suite needs of nodes and client.
    fn settle(&self, around: &Around<'_>, first: &Node, nodes: &[Node]) -> Result<()> {
        let kubectl = around.shared.join("kubectl").display().to_string();
        self.docker.run(&["cp", &format!("{}:/usr/bin/kubectl", first.name), &kubectl])?;
        around.settle(nodes)?;
        around::give_client(
            self.docker,
            &self.request.name,
            &self.docker.exec(&first.name, &["cat", "/etc/kubernetes/admin.conf"])?,
        )
    }

    fn kubectl(&self, node: &Node, args: &[&str]) -> Result<String> {
        self.docker.exec(&node.name, &[&["kubectl", ADMIN], args].concat())
    }

    /// kind has joined the nodes, which is not yet to say that the API server knows them.
    fn wait_until_ready(&self, first: &Node, nodes: &[Node]) -> Result<()> {
        let mut waits: Vec<Vec<String>> = Vec::new();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        for node in nodes {
            waits.push(words(&format!("wait node/{} --for=condition=Ready", node.name)));
        }
        if self.request.proxy_mode != ProxyMode::None {
            // Without a kube-proxy nothing in a pod reaches the API server.
            for what in ["daemonset/kube-proxy", "deployment/coredns"] {
                waits.push(words(&format!("-n kube-system rollout status {what}")));
            }
        }
        let jobs = waits.into_iter().map(|mut words| -> Box<dyn FnOnce() -> Result<()> + Send + '_> {
            words.push("--timeout=60s".to_owned());
            Box::new(move || {
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                run::wait_for("nodes and add-ons", READY, || self.kubectl(first, &words).map(drop))
            })
        });
        run::parallel(jobs.collect())
    }
}

/// Keeps what can be learnt of a cluster on which something went wrong: kind's own logs besides the rest.
pub fn keep_evidence(cluster: &str) -> Result<Option<PathBuf>> {
    evidence::keep(&MAKER, &["kubectl", ADMIN], cluster, |docker, folder| {
        let kind = program(host()).ensure()?;
        let mut command = command(docker, &kind, cluster)?;
        command.args(["export", "logs", "--name", cluster]).arg(folder.join("kind"));
        run::output_within(&mut command, evidence::LOOK)
    })
}

/// The kind command that this machine needs.
fn program(host: Host) -> Program {
    Program {
        name: NAME,
        module: "sigs.k8s.io/kind",
        package: "sigs.k8s.io/kind",
        version: host.release().version,
        stamp: None,
    }
}

/// The kind command for a cluster, with the daemon and the network that it shall use.
fn command(docker: &Docker, kind: &Path, cluster: &str) -> Result<std::process::Command> {
    let mut command = docker.user(kind);
    command.env(ENGINE, docker.client.name());
    let network = match docker.client {
        Client::Docker => "KIND_EXPERIMENTAL_DOCKER_NETWORK",
        Client::Podman => "KIND_EXPERIMENTAL_PODMAN_NETWORK",
    };
    command.env(network, network::nodes_network(cluster));
    // podman asks only for the capabilities that there are.
    if docker.client == Client::Docker && stand_in::is_needed() {
        let real = docker.client.on_path().context("there is no docker on PATH")?;
        let folder = Places::new(cluster).data.join("docker-for-kind");
        command.envs(stand_in::put(&folder, real)?);
    }
    Ok(command)
}
