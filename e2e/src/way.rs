//! The ways by which an outside client may reach the page: the bare NodePort, kubectl, and ours.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::app::{NAMESPACE, PORT};
use crate::cluster::{Cluster, end_group};
use crate::condition::until;
use crate::page;
use crate::plugin::Plugin;

/// Where `kubectl port-forward` listens: no NodePort.
const KUBECTL_PORT: u16 = 18080;
/// How soon a way that was opened carries the page.
const OPEN: Duration = Duration::from_secs(15);

/// One way to the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// kube-proxy's own rules, nothing of ours beside them.
    NodePort,
    /// `kubectl port-forward` to the Service, on the control plane.
    Kubectl,
    /// Our rules in front of kube-proxy's, packets led to the pods by the kernel.
    Kernel,
    /// Our rules in front of kube-proxy's, packets led to our listener, from there to the pods.
    Direct,
    /// As [`Way::Direct`], from there through the API server.
    Tunnel,
    /// Our listener on the NodePort's own port, below kube-proxy's rules.
    Standby,
}

impl Way {
    pub const ALL: [Self; 6] = [Self::NodePort, Self::Kubectl, Self::Kernel, Self::Direct, Self::Tunnel, Self::Standby];

    pub fn name(self) -> &'static str {
        match self {
            Self::NodePort => "nodeport",
            Self::Kubectl => "kubectl",
            Self::Kernel => "kernel",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
            Self::Standby => "standby",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.name() == name)
    }

    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::NodePort | Self::Kubectl)
    }

    /// The words that start ours in the background.
    pub fn words(self, cluster: &Cluster) -> Result<Vec<String>> {
        let mut words: Vec<String> = ["forward", "start", "svc/productpage", "-n", NAMESPACE].map(str::to_owned).into();
        match self {
            Self::Standby => words.extend(["--address".to_owned(), cluster.control_plane()?.address.clone()]),
            _ => words.extend(["--front", "--mode", self.name()].map(str::to_owned)),
        }
        Ok(words)
    }
}

/// A way that is open. It is closed when this is dropped.
pub struct Open {
    pub way: Way,
    /// What the client dials.
    pub address: SocketAddr,
    /// Ours, as the operator on the control plane runs it.
    pub operator: Plugin,
    start: Vec<String>,
    kubectl: Option<Child>,
}

impl Open {
    /// Opens it and waits until it carries the page. The page must be there.
    pub fn begin(cluster: &Cluster, operator: &Plugin, way: Way) -> Result<Self> {
        let start = if way.is_ours() { way.words(cluster)? } else { Vec::new() };
        Self::begin_with(cluster, operator, way, cluster.public_address.parse()?, start)
    }

    /// As [`Open::begin`] for ours in front, listening on `address`; the client dials `public`.
    pub fn at(cluster: &Cluster, operator: &Plugin, way: Way, address: &str, public: IpAddr) -> Result<Self> {
        let mut start = way.words(cluster)?;
        start.extend(["--address", address].map(str::to_owned));
        Self::begin_with(cluster, operator, way, public, start)
    }

    fn begin_with(cluster: &Cluster, operator: &Plugin, way: Way, public: IpAddr, start: Vec<String>) -> Result<Self> {
        let port = if way == Way::Kubectl { KUBECTL_PORT } else { PORT };
        let address = SocketAddr::new(public, port);
        let mut open = Self { way, address, operator: operator.clone(), start, kubectl: None };
        if way == Way::Kubectl {
            open.kubectl = Some(port_forward(cluster)?);
        }
        if way.is_ours() {
            open.start()?;
        }
        page::expect_page(&cluster.client, &format!("http://{address}/productpage"), OPEN)
            .with_context(|| format!("by way of {}", way.name()))?;
        Ok(open)
    }

    /// Starts ours, the first time or after its end.
    pub fn start(&self) -> Result<()> {
        let words: Vec<&str> = self.start.iter().map(String::as_str).collect();
        self.operator.must(&words, 0)?;
        until("it carries", OPEN, || {
            let status = self.status()?;
            ensure!(self.way == Way::Standby || status["position"] == "front", "{status:#}");
            ensure!(self.way != Way::Kernel || status["kernel"]["carrying"] == true, "{status:#}");
            Ok(())
        })
    }

    /// What `forward status -o json` says of ours.
    pub fn status(&self) -> Result<Value> {
        let ended = self.operator.run(&["forward", "status", "-o", "json"])?;
        let list: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("no JSON: {}", ended.stdout))?;
        Ok(list["items"][0].clone())
    }

    /// Sends a signal (as kill(1) names it) to the process of ours, and gives its id.
    pub fn signal(&self, signal: &str) -> Result<u64> {
        let status = self.status()?;
        let pid = status["pid"].as_u64().with_context(|| format!("no process: {status:#}"))?;
        self.operator.place.shell(&format!("kill -{signal} {pid}"))?;
        Ok(pid)
    }

    /// Ends it, and insists that it could be ended.
    pub fn end(mut self) -> Result<()> {
        self.close()
    }

    fn close(&mut self) -> Result<()> {
        if let Some(mut child) = self.kubectl.take() {
            end_group(&mut child);
        }
        if self.way.is_ours() { self.operator.clear() } else { Ok(()) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Best effort after a failure; `end` tells.
        let _ = self.close();
    }
}

/// kubectl's own, in the operator's shell.
fn port_forward(cluster: &Cluster) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let node = cluster.control_plane()?;
    let mut command = Command::new("env");
    command.args(&node.place.enter).arg(cluster.bin.join("kubectl")).arg("--kubeconfig=/etc/kubernetes/admin.conf");
    command.args(["port-forward", "-n", NAMESPACE, "svc/productpage", "--address", &node.address]);
    command.arg(format!("{KUBECTL_PORT}:9080")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().context("cannot start kubectl port-forward")
}
