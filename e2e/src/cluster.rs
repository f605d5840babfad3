//! A running cluster, as its descriptor file tells it, and commands run in its places.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The environment variable that names the descriptor file.
pub const DESCRIPTOR: &str = "BOOKACCESS_E2E_CLUSTER";
/// What a kubectl command may take, waits of its own included.
const KUBECTL_LIMIT: Duration = Duration::from_secs(60);
/// How long a command's output may stay open after its end, held by something it started.
const HELD_OPEN_LIMIT: Duration = Duration::from_secs(2);

/// What `cargo xtask cluster up` writes about a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub provider: String,
    pub kubernetes_version: String,
    /// `iptables` or `nftables`, or `none` where there is no kube-proxy at all.
    pub proxy_mode: String,
    /// What an outside client dials; the test network leads it to the control plane.
    pub public_address: String,
    /// Whether nodes, pods and Services have IPv6 addresses besides their IPv4 ones.
    #[serde(default)]
    pub dual_stack: bool,
    /// As `public_address`, by IPv6; only of a dual-stack cluster.
    #[serde(default)]
    pub public_address_v6: Option<String>,
    /// A kubeconfig as the client sees it.
    pub kubeconfig: PathBuf,
    /// The folder that holds kubectl.
    pub bin: PathBuf,
    pub run_dir: PathBuf,
    pub nodes: Vec<Node>,
    pub client: Place,
    pub gateway: Place,
}

/// A node of the cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    #[serde(flatten)]
    pub place: Place,
    #[serde(default)]
    pub control_plane: bool,
    pub address: String,
    pub pod_cidr: String,
    /// Only in a dual-stack cluster, as the next one.
    #[serde(default)]
    pub address_v6: Option<String>,
    #[serde(default)]
    pub pod_cidr_v6: Option<String>,
}

/// Somewhere commands can be run: a node, the outside client, the gateway between them.
#[derive(Debug, Clone, Deserialize)]
pub struct Place {
    pub name: String,
    /// The words before a command that make it run there.
    pub enter: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The exit code; None after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    /// The output of a command that must have succeeded.
    pub fn success(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        bail!("exit code {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout.trim(), self.stderr.trim())
    }
}

impl Cluster {
    /// The cluster that the environment names.
    pub fn from_env() -> Result<Self> {
        let path = std::env::var(DESCRIPTOR)
            .with_context(|| format!("{DESCRIPTOR} is not set: run the suite by `cargo xtask e2e`"))?;
        Self::load(&path)
    }

    pub fn load(path: &str) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let cluster: Self = serde_json::from_str(&text).with_context(|| format!("{path} is no descriptor"))?;
        cluster.control_plane()?;
        Ok(cluster)
    }

    /// Whether kube-proxy is part of the cluster, as long as no fault has taken it away.
    pub fn has_kube_proxy(&self) -> bool {
        self.proxy_mode != "none"
    }

    /// Whether kube-proxy is a DaemonSet, which faults act on: k3s has it in its own process.
    pub fn has_kube_proxy_set(&self) -> bool {
        self.has_kube_proxy() && !is_k3s(&self.provider)
    }

    pub fn control_plane(&self) -> Result<&Node> {
        self.nodes.iter().find(|node| node.control_plane).context("a cluster without control plane")
    }

    /// A node that is no control plane, counted from 0.
    pub fn worker(&self, index: usize) -> Result<&Node> {
        let mut workers = self.nodes.iter().filter(|node| !node.control_plane);
        workers.nth(index).with_context(|| format!("the cluster has no worker number {index}"))
    }

    /// Runs kubectl as the outside client and gives its output; failing is an error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")
    }

    /// As [`Cluster::kubectl`], with `input` on its standard input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let (program, config) = (self.bin.join("kubectl"), self.kubeconfig.clone());
        let program = program.to_str().context("a path that is not UTF-8")?;
        let config = format!("--kubeconfig={}", config.display());
        let argv = [&[program, &config], args].concat();
        let ended = self.client.feed(&argv, input, KUBECTL_LIMIT)?;
        ended.success().with_context(|| format!("kubectl {}", args.join(" ")))
    }

    /// An object or a list, parsed.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat())?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }

    /// Applies objects given as JSON or YAML.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    /// Patches an object by a JSON merge patch.
    pub fn merge(&self, namespace: &str, object: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.kubectl(&["patch", "-n", namespace, object, "--type=merge", "-p", &patch]).map(drop)
    }

    /// Patches an object by a JSON patch (RFC 6902).
    pub fn json_patch(&self, namespace: &str, object: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.kubectl(&["patch", "-n", namespace, object, "--type=json", "-p", &patch]).map(drop)
    }
}

/// Whether a provider's nodes are k3s, which is one program where others have many.
pub fn is_k3s(provider: &str) -> bool {
    matches!(provider, "k3d" | "testcontainers")
}

impl Place {
    /// Runs a command there; an exit code other than 0 is no error, a passed limit is.
    pub fn run(&self, argv: &[&str], limit: Duration) -> Result<Ended> {
        self.feed(argv, "", limit)
    }

    /// As [`Place::run`], with `input` on standard input, which is then closed.
    pub fn feed(&self, argv: &[&str], input: &str, limit: Duration) -> Result<Ended> {
        let words: Vec<&str> = self.enter.iter().map(String::as_str).chain(argv.iter().copied()).collect();
        run(&words, input, limit).with_context(|| format!("{}: {}", self.name, argv.join(" ")))
    }

    /// A process in its network namespace, as this machine numbers it: whoever holds the place, what runs there is known
    /// by the namespace. The oldest of them, which lives as long as the place.
    pub fn process(&self) -> Result<u32> {
        let wanted = self.shell("readlink /proc/self/ns/net")?;
        let all = std::fs::read_dir("/proc")?.flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net"));
        let found = pids.filter(|pid| of(*pid).is_ok_and(|link| link.as_os_str() == wanted.trim())).min();
        found.with_context(|| format!("no process of this machine is in the network namespace of {}", self.name))
    }

    /// Runs a shell line there that must succeed, and gives its output.
    pub fn shell(&self, line: &str) -> Result<String> {
        let ended = self.run(&["sh", "-ec", line], Duration::from_secs(30))?;
        ended.success().with_context(|| format!("{}: {line}", self.name))
    }
}

fn run(words: &[&str], input: &str, limit: Duration) -> Result<Ended> {
    let (program, args) = words.split_first().context("an empty command")?;
    let start = Instant::now();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that at the limit what it started ends as well.
    let mut child = command.process_group(0).spawn().context("cannot be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let Some(status) = wait(&mut child, start + limit)? else {
        end_group(&mut child);
        let said = |pipe: mpsc::Receiver<String>| pipe.recv_timeout(HELD_OPEN_LIMIT).unwrap_or_default();
        bail!("not done after {limit:?}\nstdout: {}\nstderr: {}", said(stdout), said(stderr));
    };
    let took = start.elapsed();
    let all = |pipe: mpsc::Receiver<String>, name| {
        pipe.recv_timeout(HELD_OPEN_LIMIT)
            .with_context(|| format!("ended ({status}), but something it started holds its {name} open"))
    };
    Ok(Ended { code: status.code(), stdout: all(stdout, "stdout")?, stderr: all(stderr, "stderr")?, took })
}

/// None when the command still runs at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<std::process::ExitStatus>> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Ends a child that leads its own process group, and all of the group.
pub fn end_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    // Its failing means that the group has ended by itself.
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = child.wait();
}

fn collect(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn here() -> Place {
        Place { name: "here".into(), enter: vec!["env".into(), "A=1".into()] }
    }

    #[test]
    fn a_command_is_run_behind_the_words_that_enter_its_place() {
        let ended =
            here().feed(&["sh", "-c", "cat; echo $A; echo no >&2; exit 3"], "in", Duration::from_secs(5)).unwrap();
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(3), "in1\n", "no\n"));
        assert!(ended.success().unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn a_place_is_known_by_its_network_namespace() {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let process = here().process().unwrap();
        assert_eq!(std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap(), own);
    }

    #[test]
    fn a_limit_ends_the_whole_group() {
        let start = Instant::now();
        let error =
            here().run(&["sh", "-c", "echo begun; sleep 60 & sleep 60"], Duration::from_millis(300)).unwrap_err();
        assert!(format!("{error:#}").contains("begun"), "{error:#}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_descriptor_is_read() {
        let text = r#"{"name":"e2e","provider":"native","kubernetesVersion":"v1.37.2","proxyMode":"nftables",
            "publicAddress":"203.0.113.10","kubeconfig":"/k","bin":"/b","runDir":"/r",
            "nodes":[{"name":"cp1","controlPlane":true,"address":"172.30.0.2","podCidr":"10.244.0.0/24","enter":["nsenter","--"],"containerdSocket":"/s"},
                     {"name":"w1","controlPlane":false,"address":"172.30.0.3","podCidr":"10.244.1.0/24","enter":[]}],
            "client":{"name":"client","address":"198.51.100.2","enter":[]},"gateway":{"name":"gw","enter":[]}}"#;
        let cluster: Cluster = serde_json::from_str(text).unwrap();
        assert_eq!(cluster.control_plane().unwrap().place.name, "cp1");
        assert_eq!(cluster.worker(0).unwrap().pod_cidr, "10.244.1.0/24");
        assert!(cluster.worker(1).is_err());
        assert!(!cluster.dual_stack && cluster.public_address_v6.is_none());
        assert!(cluster.nodes.iter().all(|node| node.address_v6.is_none() && node.pod_cidr_v6.is_none()));
    }

    #[test]
    fn a_dual_stack_descriptor_is_read() {
        let text = r#"{"name":"e2e","provider":"native","kubernetesVersion":"v1.37.2","proxyMode":"nftables",
            "publicAddress":"203.0.113.10","dualStack":true,"publicAddressV6":"2001:db8:113::10",
            "kubeconfig":"/k","bin":"/b","runDir":"/r",
            "nodes":[{"name":"cp1","controlPlane":true,"address":"172.30.0.2","podCidr":"10.244.0.0/24",
                      "addressV6":"fd30::10","podCidrV6":"fd00:10:244::/64","enter":[]}],
            "client":{"name":"client","enter":[]},"gateway":{"name":"gw","enter":[]}}"#;
        let cluster: Cluster = serde_json::from_str(text).unwrap();
        assert!(cluster.dual_stack);
        assert_eq!(cluster.public_address_v6.as_deref(), Some("2001:db8:113::10"));
        let node = cluster.control_plane().unwrap();
        assert_eq!(node.address_v6.as_deref().zip(node.pod_cidr_v6.as_deref()), Some(("fd30::10", "fd00:10:244::/64")));
    }
}
