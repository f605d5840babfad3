//! Provider `kind`: the nodes are containers that the `kind` command makes, reached by `docker exec`. On the machine
//! itself a cluster leaves two folders named after it, and with Docker two networks and what is attached to them.

pub mod config;
pub mod evidence;
pub mod image;
pub mod network;
pub mod node_image;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::docker::nodes::Maker;
use super::docker::{self, Docker, daemon, stand_in};
use super::host_settings;
use super::native::descriptor::{CLIENT_KUBECONFIG, Descriptor, Gateway, Member, Node};
use super::native::plan::{self, POD_RANGE, PUBLIC_ADDRESS, Places, ProxyMode, Request};
use super::native::{cgroup, limits, lock, node::CONTAINERD_SOCKET, packages, teardown};
use super::standin;
use crate::go_program::Program;
use crate::run;
use config::Host;
use network::{LABEL, Range};

/// The provider's name in a descriptor.
pub const NAME: &str = "kind";
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

/// How long nodes and add-ons may take until they are ready.
pub const READY: Duration = Duration::from_secs(120);

/// How long its end may take.
const ENDING: Duration = Duration::from_secs(60);

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
    let docker = docker::find(install)?;
    begin(&MAKER, &docker, &request, keep_evidence, |places| {
        Start { docker: &docker, host, request: &request, places }.run(install)
    })
}

/// Keeps what can be learnt of a cluster, and says where.
pub type Evidence = fn(&str) -> Result<Option<PathBuf>>;

/// Starts a cluster of Docker's unless it runs as asked; on any failure nothing of it is left.
pub fn begin(
    maker: &Maker,
    docker: &Docker,
    request: &Request,
    evidence: Evidence,
    start: impl FnOnce(&Places) -> Result<Descriptor>,
) -> Result<Descriptor> {
    let _lock = lock(&request.name)?;
    let places = Places::new(&request.name);
    fs::create_dir_all(&places.run)?;
    let started = Instant::now();
    let made = already(maker, docker, request, &places).and_then(|running| match running {
        Some(running) => Ok(running),
        None => {
            let made = start(&places)?;
            println!("cluster {} is ready after {:.1} s", request.name, started.elapsed().as_secs_f32());
            Ok(made)
        }
    });
    made.map_err(|error| undo(request, &places, evidence, error))
}

/// Takes a failed start down, a client that was kept for it as well. What can be learnt of it is kept.
fn undo(request: &Request, places: &Places, evidence: Evidence, error: anyhow::Error) -> anyhow::Error {
    let was_interrupted = run::forget_interrupt();
    let error = if was_interrupted {
        error
    } else {
        match evidence(&request.name) {
            Ok(Some(folder)) => error.context(format!("the cluster did not start (logs: {})", folder.display())),
            _ => error,
        }
    };
    println!("taking down what was started");
    let kept = teardown::generation(places).ok().flatten().is_some();
    let result = down(&request.name, kept);
    if was_interrupted {
        run::remember_interrupt();
    }
    match result {
        Ok(()) => error,
        Err(left) => error.context(format!("and the clean-up failed too: {left:#}")),
    }
}

/// The description of a cluster that runs as asked; what is left of a broken one is cleaned away.
fn already(maker: &Maker, docker: &Docker, request: &Request, places: &Places) -> Result<Option<Descriptor>> {
    let name = &request.name;
    let ours = containers(docker, name)?;
    maker.must_be_ours(docker, name, &ours)?;
    let alive = running(name);
    if let Ok(Some(found)) = Descriptor::load(places)
        && found.members().iter().all(|member| alive.iter().any(|running| running == member))
    {
        found.must_be(request)?;
        println!("cluster {name} runs already");
        return Ok(Some(found));
    }
    let is_kept = ours == [network::client(name)];
    if !is_kept && (!ours.is_empty() || !networks(docker, name)?.is_empty()) {
        println!("cleaning up what is left of an earlier cluster {name}");
        remove(docker, name, false)?;
    }
    Ok(None)
}

/// The networks of a cluster.
fn networks(docker: &Docker, cluster: &str) -> Result<Vec<String>> {
    docker.lines(&["network", "ls", "--format", "{{.Name}}", "--filter", &format!("label={LABEL}={cluster}")])
}

/// All containers of a cluster: those on its networks.
fn containers(docker: &Docker, cluster: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for network in networks(docker, cluster)? {
        let filter = format!("network={network}");
        found.extend(docker.lines(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter])?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The clusters of which anything is left with a daemon that answers.
pub fn names() -> Vec<String> {
    let format = format!("{{{{.Label \"{LABEL}\"}}}}");
    let args = ["network", "ls", "--format", &format, "--filter", &format!("label={LABEL}")];
    let mut names: Vec<_> =
        docker::reachable().iter().filter_map(|docker| docker.lines(&args).ok()).flatten().collect();
    names.sort();
    names.dedup();
    names
}

/// The members that run, by the names that the descriptor has.
pub fn running(cluster: &str) -> Vec<String> {
    let mut members = Vec::new();
    for docker in docker::reachable() {
        let of_cluster = containers(&docker, cluster).unwrap_or_default();
        let running = docker.lines(&["ps", "--format", "{{.Names}}"]).unwrap_or_default();
        for container in running.into_iter().filter(|container| of_cluster.contains(container)) {
            let member = match container.strip_prefix(&format!("{cluster}-")) {
                Some(member @ ("client" | "gateway")) => member.to_owned(),
                _ => container,
            };
            members.push(member);
        }
    }
    members
}

/// Ends all that belongs to the cluster, and the daemon of our own where it holds no other. With `keep_client` the client
/// stays, with what runs in it, for the next cluster of this name.
pub fn down(cluster: &str, keep_client: bool) -> Result<()> {
    let places = Places::new(cluster);
    let generation = teardown::generation(&places)?;
    let mut kept = false;
    for docker in docker::reachable() {
        let has_client = containers(&docker, cluster)?.contains(&network::client(cluster));
        remove(&docker, cluster, keep_client && has_client)?;
        kept |= keep_client && has_client;
    }
    teardown::forget(&places, kept.then_some(generation.unwrap_or(0)))?;
    close()
}

/// What is done once no cluster is left: the daemon of our own ends, and the machine's settings are as they were.
pub fn close() -> Result<()> {
    if names().is_empty() {
        if !daemon::processes()?.is_empty() {
            daemon::stop()?;
        }
        daemon::clean()?;
        host_settings::restore()?;
        let _ = fs::remove_dir(plan::run_root());
    }
    Ok(())
}

/// Removes a cluster's containers and networks; again, where a kind that was killed still made one meanwhile.
fn remove(docker: &Docker, cluster: &str, keep_client: bool) -> Result<()> {
    let client = network::client(cluster);
    let clients = network::clients_network(cluster);
    run::wait_for("removing the cluster's containers and networks", ENDING, || {
        let ending: Vec<_> =
            containers(docker, cluster)?.into_iter().filter(|name| !(keep_client && *name == client)).collect();
        if !ending.is_empty() {
            // With the volumes that kind gives its nodes.
            let words = ["rm", "--force", "--volumes"].map(String::from);
            docker.run(&[&words[..], &ending].concat())?;
        }
        for network in networks(docker, cluster)?.into_iter().filter(|name| !(keep_client && *name == clients)) {
            docker.run(&["network", "rm", &network])?;
        }
        Ok(())
    })
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
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::io::Write::write_all(&mut file, config::cluster(self.host, &wanted).as_bytes())?;
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
        give_client(
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

/// What a cluster is described by besides its nodes.
pub struct Around<'a> {
    pub docker: &'a Docker,
    pub request: &'a Request,
    pub places: &'a Places,
    pub generation: u8,
    pub client: Range,
    /// Seen at the same place by every member; a client that is kept goes on seeing it.
    pub shared: PathBuf,
}

impl<'a> Around<'a> {
    /// Makes all that is there before the first node: images, networks, and of this image the client and the gateway.
    pub fn prepare(
        docker: &'a Docker,
        request: &'a Request,
        places: &'a Places,
        image: &str,
        install: bool,
        step: &dyn Fn(&str),
    ) -> Result<Self> {
        let shared = places.member("client");
        fs::create_dir_all(&shared)?;
        if install {
            packages::ensure_these(&[standin::BUSYBOX], true)?;
        }
        standin::build(&shared.join("standin.tar"))?;
        step("images made");
        let next = teardown::generation(places)?.map_or(0, |last| last.wrapping_add(1));
        let generation = network::make_nodes_network(docker, &request.name, next)?;
        let client = network::ensure_client(docker, &request.name, image, &shared.display().to_string())?;
        network::start_gateway(docker, &request.name, image, generation, client)?;
        step("client and gateway connected");
        host_settings::record()?;
        Ok(Self { docker, request, places, generation, client, shared })
    }

    /// Leads the public address to the control plane.
    pub fn translate(&self, control_plane: &Node) -> Result<()> {
        network::translate(self.docker, &self.request.name, self.generation, control_plane.address.parse()?)
    }

    /// Makes the gateway the nodes' way out, and gives them the stand-ins' images.
    pub fn settle(&self, nodes: &[Node]) -> Result<()> {
        let way_out = Range::nodes(self.generation).gateway();
        let archive = self.shared.join("standin.tar").display().to_string();
        // Docker's tmpfs forbids programs, and what is tested is put there.
        let line = format!(
            "ip route replace default via {way_out}; mount -o remount,exec /run; \
             ctr --namespace k8s.io images import {archive} >/dev/null"
        );
        self.docker.on_each(nodes, &line)
    }

    /// Describes the cluster, and keeps the description. Which pods' network a node has is the controllers' choice, so
    /// they are asked.
    pub fn describe(
        &self,
        provider: &str,
        mut nodes: Vec<Node>,
        kubectl: impl Fn(&[&str]) -> Result<String>,
    ) -> Result<Descriptor> {
        for node in &mut nodes {
            let asked = ["get", "node", &node.name, "-o", "jsonpath={.spec.podCIDR}"];
            node.pod_cidr = kubectl(&asked)?.trim().to_owned();
        }
        let request = self.request;
        let enter = |container: &str| self.docker.enter(container);
        let descriptor = Descriptor {
            name: request.name.clone(),
            provider: provider.to_owned(),
            kubernetes_version: request.version.clone(),
            proxy_mode: request.proxy_mode.name().to_owned(),
            ec2: false,
            dual_stack: false,
            generation: self.generation,
            public_address: PUBLIC_ADDRESS.to_string(),
            public_address_v6: None,
            kubeconfig: CLIENT_KUBECONFIG.to_owned(),
            bin: self.shared.display().to_string(),
            run_dir: self.places.run.display().to_string(),
            nodes,
            client: Member {
                name: "client".to_owned(),
                address: self.client.first_member().to_string(),
                enter: enter(&network::client(&request.name)),
            },
            gateway: Gateway { name: "gateway".to_owned(), enter: enter(&network::gateway(&request.name)) },
        };
        descriptor.save(self.places)?;
        Ok(descriptor)
    }
}

/// Gives the client a kubeconfig: the administrator's, with the public address.
pub fn give_client(docker: &Docker, cluster: &str, admins: &str) -> Result<()> {
    let config = of_client(admins, PUBLIC_ADDRESS);
    let put = format!("umask 077; mkdir -p /root/.kube; cat > {CLIENT_KUBECONFIG}");
    docker.feed(&network::client(cluster), &["sh", "-ec", &put], &config).map(drop)
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
    Program { name: NAME, package: "sigs.k8s.io/kind", version: host.release().version, stamp: None }
}

/// The kind command for a cluster, with the daemon and the network that it shall use.
fn command(docker: &Docker, kind: &Path, cluster: &str) -> Result<std::process::Command> {
    let mut command = docker.user(kind);
    command.env("KIND_EXPERIMENTAL_PROVIDER", "docker");
    command.env("KIND_EXPERIMENTAL_DOCKER_NETWORK", network::nodes_network(cluster));
    if stand_in::is_needed() {
        let real = docker::on_path().context("there is no docker on PATH")?;
        let folder = Places::new(cluster).data.join("docker-for-kind");
        command.envs(stand_in::put(&folder, real)?);
    }
    Ok(command)
}

/// The administrator's kubeconfig, as the external client has it.
fn of_client(config: &str, public: Ipv4Addr) -> String {
    let lines = config.lines().map(|line| match line.split_once("server: ") {
        Some((before, _)) => format!("{before}server: https://{public}:6443\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_dials_the_public_address() {
        let config = "clusters:\n- cluster:\n    server: https://e2e-control-plane:6443\n  name: e2e\n";
        assert_eq!(
            of_client(config, PUBLIC_ADDRESS),
            "clusters:\n- cluster:\n    server: https://203.0.113.10:6443\n  name: e2e\n"
        );
    }
}
