//! Provider `k3d`: the nodes are containers of k3s that the `k3d` command makes, on the same networks and with the same
//! client and gateway as those of kind. What is left of a cluster is found and ended as there.
//!
//! k3s has no image that could be built here of packages: where no registry gives it, nothing is started, and that is said.

mod config;
pub mod testcontainers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::docker::around::{self, Around, READY};
use super::docker::nodes::Maker;
use super::docker::{self, Docker, cluster, evidence, network};
use super::kind::{self, node_image};
use super::native::cgroup;
use super::native::descriptor::{Descriptor, Node};
use super::native::plan::{self, Places, ProxyMode, Request};
use crate::go_program::Program;
use crate::run;

/// The provider's name in a descriptor.
pub const NAME: &str = "k3d";
const MAKER: Maker = Maker {
    name: NAME,
    cluster: cluster::K3D_CLUSTER,
    role: "k3d.role",
    roles: ["server", "agent"],
    end: "k3d cluster delete",
    containerd_socket: "/run/k3s/containerd/containerd.sock",
};
const PROGRAM: Program = Program {
    name: NAME,
    module: "github.com/k3d-io/k3d/v5",
    package: "github.com/k3d-io/k3d/v5",
    version: config::VERSION,
    stamp: Some("github.com/k3d-io/k3d/v5/version.Version"),
};
/// The administrator's kubeconfig on a server.
pub const ADMIN: &str = "/etc/rancher/k3s/k3s.yaml";
/// Where k3s tells its containerd which image holds a pod's namespaces.
const CONTAINERD: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
/// The label of a control plane, which k3s gives the value `true` and kubeadm none.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// What a look at one node's log may take.
const LOG: Duration = Duration::from_secs(20);

/// The Kubernetes version that is started when none is named.
pub fn default_version() -> &'static str {
    config::default_version(cgroup::unified())
}

/// Brings a cluster up and gives its description; on any failure nothing of it is left.
pub fn up(request: Request, install: bool) -> Result<Descriptor> {
    plan::check_name(&request.name)?;
    if request.ec2 || request.dual_stack {
        bail!("provider k3d has neither --ec2 nor --dual-stack: use --provider native");
    }
    run::catch_interrupts()?;
    let (docker, k3d) = require(&request.version)?;
    let image = config::image(&request.version);
    cluster::begin(&MAKER, &docker, &request, keep_evidence, |places| {
        let start = Start { maker: &MAKER, docker: &docker, request: &request, places };
        start.run(install, |shared| start.create(&k3d, &image, shared))
    })
}

/// The daemon, with the images for this version, and the k3d command. Fails where one of them cannot be had: then the
/// provider cannot be used here.
pub fn require(version: &str) -> Result<(Docker, PathBuf)> {
    config::check_version(cgroup::unified(), version)?;
    // A daemon of our own would have no way to k3s' image, so none is started.
    let docker = docker::find(false).context("NOT RUN: provider k3d needs a Docker daemon that reaches a registry")?;
    for image in [config::image(version), config::tools_image()] {
        must_be_had(NAME, &docker, &image)?;
    }
    let k3d = PROGRAM.ensure().with_context(|| format!("NOT RUN: provider k3d needs k3d {}", PROGRAM.version))?;
    Ok((docker, k3d))
}

/// Fails where the daemon neither has an image nor gets it.
fn must_be_had(provider: &str, docker: &Docker, image: &str) -> Result<()> {
    if node_image::is_there(docker, image) {
        return Ok(());
    }
    let why = if docker.is_own() {
        "the Docker daemon has no way out of this machine".to_owned()
    } else {
        println!("pulling {image}");
        match node_image::pull(docker, image) {
            Ok(()) => return Ok(()),
            Err(error) => format!("it cannot be pulled: {error:#}"),
        }
    };
    run::check()?;
    bail!(
        "NOT RUN: provider {provider} needs the image {image}, and {why}\n  load it from elsewhere (docker load), or use --provider kind, which builds its image where no registry answers"
    )
}

/// Keeps what can be learnt of a cluster on which something went wrong: the nodes' logs besides the rest.
pub fn keep_evidence(cluster: &str) -> Result<Option<PathBuf>> {
    keep_evidence_of(&MAKER, cluster)
}

fn keep_evidence_of(maker: &Maker, cluster: &str) -> Result<Option<PathBuf>> {
    evidence::keep(maker, &["kubectl"], cluster, |docker, folder| {
        let nodes = maker.containers(docker, cluster, None)?;
        for node in &nodes {
            // Both streams in their order.
            let words = [&["sh", "-c", "exec \"$@\" 2>&1", "sh"].map(String::from)[..], &docker.words()].concat();
            let said = run::output_within(run::command(&words).args(["logs", node]), LOG);
            let text = said.unwrap_or_else(|error| format!("{error:#}\n"));
            fs::write(folder.join(format!("{node}.log")), text)?;
        }
        Ok(format!("{}\n", nodes.join("\n")))
    })
}

/// A cluster that is being made.
struct Start<'s> {
    maker: &'s Maker,
    docker: &'s Docker,
    request: &'s Request,
    places: &'s Places,
}

impl Start<'_> {
    /// `create` makes the nodes; it is given the folder that all members shall see.
    fn run(&self, install: bool, create: impl FnOnce(&Path) -> Result<()>) -> Result<Descriptor> {
        let (docker, request) = (self.docker, self.request);
        // Client and gateway have programs that k3s' image lacks.
        let beside = node_image::ensure(docker, kind::host().release().kubernetes, install)?;
        let clock = Instant::now();
        let step = |what: &str| println!("  {:5.1} s  {what}", clock.elapsed().as_secs_f32());
        let around = Around::prepare(docker, request, self.places, &beside, install, &step)?;
        create(&around.shared).map_err(explained)?;
        step(&format!("{} has made the nodes", self.maker.name));
        let nodes = self.maker.nodes(docker, &request.name, &network::nodes_network(&request.name))?;
        let first = nodes.first().filter(|node| node.control_plane).context("there is no server")?;
        around.translate(first)?;
        self.pull_what_pods_need(first, &nodes)?;
        step("images of the add-ons pulled");
        self.settle(&around, first, &nodes)?;
        step("nodes connected, images imported");
        self.wait_until_ready(first, &nodes)?;
        step("nodes and add-ons ready");
        let first = first.clone();
        around.describe(self.maker.name, nodes, |args| self.kubectl(&first, args))
    }

    fn create(&self, k3d: &Path, image: &str, shared: &Path) -> Result<()> {
        let name = &self.request.name;
        let network = network::nodes_network(name);
        let wanted = config::Wanted {
            name,
            image,
            network: &network,
            workers: self.request.workers,
            proxy_mode: self.request.proxy_mode,
            shared,
        };
        let file = cluster::config_file(self.places, &config::cluster(&wanted)?)?;
        let mut command = command(self.docker, k3d, &self.places.data.join("kubeconfig"));
        command.args(["cluster", "create", "--config"]).arg(file.path());
        run::output(&mut command).map(drop).map_err(|error| self.docker.explained(error))
    }

    /// k3s' add-ons are not in its own image. They are pulled to every node while it still has a way out, so that a pod
    /// can start anywhere later.
    fn pull_what_pods_need(&self, first: &Node, nodes: &[Node]) -> Result<()> {
        let path = "jsonpath={.spec.template.spec.containers[*].image}";
        let dns = run::wait_for("the add-ons of k3s", READY, || {
            let image = self.kubectl(first, &["get", "-n", "kube-system", "deployment/coredns", "-o", path])?;
            ensure!(!image.trim().is_empty(), "CoreDNS has no image");
            Ok(image.trim().to_owned())
        })?;
        let line = format!(
            "pause=$(sed -n 's/^ *sandbox\\(_image\\)\\{{0,1\\}} *= *\"\\([^\"]*\\)\".*/\\2/p' {CONTAINERD}); test -n \"$pause\"; \
             for image in $pause {dns}; do crictl pull \"$image\"; done"
        );
        self.docker.on_each(nodes, &line)
    }

    /// What the suite needs of nodes and client. From here on nothing leaves the machine.
    fn settle(&self, around: &Around<'_>, first: &Node, nodes: &[Node]) -> Result<()> {
        let (docker, name) = (self.docker, &self.request.name);
        // Of the client's image: k3s' own kubectl is a part of k3s.
        let kubectl = around.shared.join("kubectl").display().to_string();
        docker.run(&["cp", &format!("{}:/usr/bin/kubectl", network::client(name)), &kubectl])?;
        around.settle(nodes)?;
        around::give_client(docker, name, &docker.exec(&first.name, &["cat", ADMIN])?)
    }

    fn kubectl(&self, node: &Node, args: &[&str]) -> Result<String> {
        self.docker.exec(&node.name, &[&["kubectl"], args].concat())
    }

    fn wait_until_ready(&self, first: &Node, nodes: &[Node]) -> Result<()> {
        for node in nodes {
            let words = ["wait", &format!("node/{}", node.name), "--for=condition=Ready", "--timeout=60s"];
            run::wait_for("the nodes", READY, || self.kubectl(first, &words).map(drop))?;
        }
        if self.request.proxy_mode != ProxyMode::None {
            // Without a kube-proxy nothing in a pod reaches the API server.
            let words = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"];
            run::wait_for("the add-ons", READY, || self.kubectl(first, &words).map(drop))?;
        }
        // The shipped manifests ask for the label as kubeadm writes it. k3s writes its own once, when it starts.
        let path = format!("jsonpath={{.metadata.labels.{}}}", CONTROL_PLANE.replace('.', "\\."));
        run::wait_for("k3s' label of the control plane", READY, || {
            let value = self.kubectl(first, &["get", "node", &first.name, "-o", &path])?;
            ensure!(value.trim() == "true", "it is {value:?}");
            Ok(())
        })?;
        self.kubectl(first, &["label", "--overwrite", "node", &first.name, &format!("{CONTROL_PLANE}=")]).map(drop)
    }
}

/// The k3d command, with the daemon that it shall use and a kubeconfig that is never the user's own.
fn command(docker: &Docker, k3d: &Path, kubeconfig: &Path) -> Command {
    let mut command = docker.user(k3d);
    command.env("KUBECONFIG", kubeconfig);
    // What it says may stand in an error of ours.
    command.env("LOG_COLORS", "false");
    command
}

/// k3d and testcontainers ask for privileged containers by Docker's API: nobody can stand in for them as for kind.
fn explained(error: anyhow::Error) -> anyhow::Error {
    if !format!("{error:#}").contains("unable to apply caps") {
        return error;
    }
    error.context(
        "NOT RUN: k3s is started in a privileged container, and Docker cannot give it every right here (CAP_SYS_RESOURCE is missing)\n  use --provider kind or --provider native",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::provider::docker::fake;

    fn request(proxy_mode: ProxyMode) -> Request {
        Request {
            name: "e2e".into(),
            version: "v1.35.5".into(),
            workers: 2,
            proxy_mode,
            ec2: false,
            dual_stack: false,
            image: None,
        }
    }

    fn lines(file: &Path) -> Vec<String> {
        fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_image_that_cannot_be_had_is_not_run_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let image = config::image("v1.35.5");
        let refuses = "test \"$1\" = pull && echo 'Error response from daemon: Get \"https://registry-1.docker.io/v2/\": dial tcp: connection refused' >&2; exit 1";
        let said = must_be_had(NAME, &fake::docker(folder.path(), refuses), &image).unwrap_err().to_string();
        for words in [
            "NOT RUN: provider k3d needs the image rancher/k3s:v1.35.5-k3s1, and it cannot be pulled: ",
            "connection refused",
            "--provider kind",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let there = fake::docker(folder.path(), "test \"$1\" = image");
        must_be_had(NAME, &there, &image).unwrap();
    }

    #[test]
    fn a_daemon_of_our_own_is_not_even_asked_to_pull() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let script = format!("echo \"$@\" >>{}; exit 1", asked.display());
        let docker = fake::own(folder.path(), &script);
        let said = must_be_had(NAME, &docker, "rancher/k3s:v1").unwrap_err().to_string();
        assert!(said.contains("and the Docker daemon has no way out of this machine\n"), "{said}");
        assert!(lines(&asked).iter().all(|line| !line.contains("pull")), "{:?}", lines(&asked));
    }

    #[test]
    fn k3d_is_told_the_file_the_daemon_and_a_kubeconfig_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let script = format!(
            "printf '%s\\n' \"$@\" \"$DOCKER_HOST\" \"$KUBECONFIG\" >{seen}; cp \"$4\" {seen}.yaml",
            seen = seen.display()
        );
        let k3d = fake::program(folder.path(), "k3d", &script);
        let docker = fake::own(folder.path(), "true");
        let request = request(ProxyMode::None);
        let mut places = Places::new("e2e");
        (places.run, places.data) = (folder.path().to_owned(), folder.path().join("data"));
        let start = Start { maker: &MAKER, docker: &docker, request: &request, places: &places };
        start.create(&k3d, "rancher/k3s:v1.35.5-k3s1", Path::new("/c/client")).unwrap();
        let seen_lines = lines(&seen);
        assert_eq!(seen_lines[..3], ["cluster", "create", "--config"]);
        assert!(seen_lines[3].ends_with(".yaml"), "{seen_lines:?}");
        assert_eq!(
            seen_lines[4..],
            ["unix:///own.sock".to_owned(), places.data.join("kubeconfig").display().to_string()]
        );
        let text = fs::read_to_string(folder.path().join("seen.yaml")).unwrap();
        assert!(text.contains("network: bookaccess-e2e\n") && text.contains("- arg: --disable-kube-proxy\n"), "{text}");
    }

    #[test]
    fn rights_that_docker_cannot_give_are_named() {
        let said = anyhow::anyhow!("OCI runtime create failed: unable to apply caps: operation not permitted: unknown");
        assert!(format!("{:#}", explained(said)).starts_with("NOT RUN: k3s is started in a privileged container"));
        assert_eq!(explained(anyhow::anyhow!("other")).to_string(), "other");
    }

    #[test]
    fn pods_images_are_pulled_to_every_node_before_the_way_out_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        // Runs what nodes are told, with a crictl that notes what it is asked for.
        let containerd = folder.path().join("config.toml");
        fs::write(&containerd, "[plugins]\n  sandbox_image = \"rancher/mirrored-pause:3.6\"\n  sandboxed = \"x\"\n")
            .unwrap();
        fake::program(folder.path(), "crictl", &format!("echo \"$2\" >>{}", seen.display()));
        let script = format!(
            "case \"$*\" in *kubectl*) echo rancher/mirrored-coredns-coredns:1.12.1;; \
             *) PATH={}:$PATH; for line; do :; done; sh -ec \"$(printf %s \"$line\" | sed s,{CONTAINERD},{},)\";; esac",
            folder.path().display(),
            containerd.display()
        );
        let docker = fake::docker(folder.path(), &script);
        let node = |name: &str| Node {
            name: name.to_owned(),
            control_plane: true,
            address: String::new(),
            pod_cidr: String::new(),
            address_v6: None,
            pod_cidr_v6: None,
            enter: Vec::new(),
            containerd_socket: String::new(),
        };
        let (request, places) = (request(ProxyMode::Iptables), Places::new("e2e"));
        let start = Start { maker: &MAKER, docker: &docker, request: &request, places: &places };
        start.pull_what_pods_need(&node("a"), &[node("a")]).unwrap();
        assert_eq!(lines(&seen), ["rancher/mirrored-pause:3.6", "rancher/mirrored-coredns-coredns:1.12.1"]);
        fs::write(&containerd, "version = 3\n  sandbox = \"rancher/mirrored-pause:3.10\"\n").unwrap();
        start.pull_what_pods_need(&node("a"), &[node("a")]).unwrap();
        assert_eq!(lines(&seen)[2], "rancher/mirrored-pause:3.10");
    }
}
