//! Which service proxy serves which node, and how it fares.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Node, PodSpec};

use crate::model::pod::Pod;
use crate::model::{Input, Outcome, Probe, ProxyMode, Snapshot, Vantage};

use super::placement::{self, Exclusion};
use super::{node, pod};

/// kube-proxy's `healthzBindAddress` by default.
pub const HEALTH_PORT: u16 = 10256;
/// kube-proxy's `metricsBindAddress` by default, on loopback.
pub const METRICS_PORT: u16 = 10249;

/// What stands behind Services in this cluster (diagnosis.md §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A kube-proxy DaemonSet in kube-system, as kubeadm makes it.
    DaemonSet,
    /// Inside another process (k3s, MicroK8s) or a static pod (RKE2): no DaemonSet is expected.
    Embedded,
    /// Cilium or Calico eBPF, which need none.
    Replaced,
    /// None was found.
    Absent,
    /// kube-system may not be read.
    Unknown,
}

/// DaemonSets whose own data path serves Services where there is no kube-proxy.
const REPLACEMENTS: [&str; 5] = ["cilium", "kube-router", "antrea-agent", "kube-ovn-cni", "calico-node"];

/// Node selector keys by which Calico's documentation and operator park kube-proxy when eBPF serves Services.
const PARKED_BY: [&str; 2] = ["non-calico", "operator.tigera.io/disable-kube-proxy"];

/// The service proxy of the cluster.
pub struct Proxy<'a> {
    pub kind: Kind,
    pub daemon_set: Option<&'a DaemonSet>,
    /// kube-proxy pods that are not being deleted, by the name of the node they run on.
    pub pods: BTreeMap<&'a str, &'a Pod>,
    /// Nodes that the DaemonSet's own spec rules out, and why.
    pub excluded: BTreeMap<&'a str, Exclusion>,
    /// Neither a node that it may run on, nor a pod that still does.
    pub nowhere: bool,
    /// The mode in its configuration; iptables where that says nothing.
    pub configured_mode: Option<ProxyMode>,
    /// The networks that its configuration serves nodePorts on; empty for its mode's default.
    pub node_port_addresses: Vec<&'a str>,
    /// The API server in its kubeconfig, as `host:port` or `host`.
    pub server: Option<&'a str>,
}

impl<'a> Proxy<'a> {
    /// Reads the DaemonSets and pods of kube-system, and the nodes' kubelet versions.
    pub fn derive(snapshot: &'a Snapshot) -> Self {
        let objects = &snapshot.objects;
        let nodes = &objects.nodes;
        let denied = |input| snapshot.gaps.iter().any(|g| g.input == input && g.subject.is_none());
        let named = |name: &str| objects.daemon_sets.iter().find(|d| d.metadata.name.as_deref() == Some(name));
        let daemon_set = named("kube-proxy");
        let spec = daemon_set.and_then(|d| d.spec.as_ref()).and_then(|s| s.template.spec.as_ref());
        // One that was evicted may stand beside the one that replaced it: the one that lives counts.
        let (live, ended): (Vec<&Pod>, Vec<&Pod>) = objects.kube_proxy_pods.iter().partition(|p| pod::is_live(p));
        let pods: BTreeMap<&str, &Pod> = ended
            .into_iter()
            .chain(live)
            .filter(|p| p.metadata.deletion_timestamp.is_none())
            .filter_map(|p| Some((pod::node(p)?, p)))
            .collect();
        let excluded: BTreeMap<&str, Exclusion> = match spec {
            Some(spec) => nodes.iter().filter_map(|n| Some((node::name(n), placement::exclusion(spec, n)?))).collect(),
            None => BTreeMap::new(),
        };
        let kind = if let (Some(_), Some(spec)) = (daemon_set, spec) {
            let parked = spec.node_selector.iter().flatten().any(|(k, _)| PARKED_BY.contains(&k.as_str()));
            let desired_nowhere = !nodes.is_empty() && excluded.len() == nodes.len();
            let calico = named("calico-node").is_some() || nodes.iter().any(has_calico);
            if desired_nowhere && ((parked && calico) || named("cilium").is_some()) {
                Kind::Replaced
            } else {
                Kind::DaemonSet
            }
        } else if denied(Input::KubeProxy) || denied(Input::Nodes) || nodes.is_empty() {
            Kind::Unknown
        } else if nodes.iter().any(is_embedded) {
            Kind::Embedded
        } else if REPLACEMENTS.iter().any(|r| named(r).is_some_and(serves_services)) {
            Kind::Replaced
        } else if !pods.is_empty() {
            // Pods without a DaemonSet: static pods, or a DaemonSet deleted without its pods.
            Kind::Embedded
        } else {
            Kind::Absent
        };
        let nowhere = match daemon_set {
            Some(_) if !nodes.is_empty() => excluded.len() == nodes.len() && pods.is_empty(),
            Some(set) => set.status.as_ref().is_some_and(|s| s.desired_number_scheduled == 0) && pods.is_empty(),
            None => false,
        };
        let config = |file: &str| objects.kube_proxy_config.as_ref()?.data.as_ref()?.get(file).map(String::as_str);
        Self {
            kind,
            daemon_set,
            pods,
            excluded,
            nowhere,
            configured_mode: config("config.conf").map(|c| mode(yaml_scalar(c, "mode"))),
            node_port_addresses: config("config.conf").map(|c| yaml_list(c, "nodePortAddresses")).unwrap_or_default(),
            server: config("kubeconfig.conf")
                .and_then(|c| yaml_scalar(c, "server"))
                .map(|url| url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')),
        }
    }

    /// Whether a kube-proxy may be expected to keep this node's rules right: its pod runs there without trouble, or it
    /// lives inside a process that nobody can look into.
    pub fn runs_on(&self, node: &str) -> bool {
        match self.kind {
            Kind::DaemonSet => self.pods.get(node).is_some_and(|p| pod::is_running(p) && pod::trouble(p).is_none()),
            Kind::Embedded => true,
            Kind::Replaced | Kind::Absent | Kind::Unknown => false,
        }
    }

    /// Whether it has started on this node less than `seconds` ago, so that its rules may not be written yet.
    pub fn has_just_started(&self, node: &str, now: Timestamp, seconds: i64) -> bool {
        self.pods.get(node).and_then(|p| pod::running_for(p, now)).is_some_and(|age| age < seconds)
    }

    /// The node, its annotation and the argument by which k3s or RKE2 was told to run no kube-proxy.
    pub fn disabled(snapshot: &'a Snapshot) -> Option<(&'a Node, &'static str, String)> {
        let mut nodes: Vec<&Node> = snapshot.objects.nodes.iter().collect();
        nodes.sort_by_key(|n| node::name(n));
        nodes.into_iter().find_map(|n| {
            let (key, words) = node::arguments(n)?;
            let at = words.iter().position(|w| w.trim_start_matches('-').starts_with("disable-kube-proxy"))?;
            let no = |word: Option<&String>| word.is_some_and(|w| w == "false");
            let off = words[at].ends_with("=false") || no(words.get(at + 1));
            (!off).then(|| (n, key, words[at].clone()))
        })
    }

    /// Whether something in this cluster may serve Services in kube-proxy's stead, as far as kube-system and the marks
    /// on the nodes show.
    pub fn may_be_replaced(snapshot: &Snapshot) -> bool {
        let objects = &snapshot.objects;
        let named = |d: &&DaemonSet| d.metadata.name.as_deref().is_some_and(|n| REPLACEMENTS.contains(&n));
        objects.daemon_sets.iter().filter(named).any(serves_services) || objects.nodes.iter().any(has_calico)
    }

    /// Whether it is known that no kube-proxy runs on this node, though one should.
    pub fn is_gone_from(&self, node: &str) -> bool {
        match self.kind {
            Kind::DaemonSet => !self.pods.contains_key(node),
            Kind::Absent => true,
            Kind::Embedded | Kind::Replaced | Kind::Unknown => false,
        }
    }
}

/// What kube-proxy of this node says of its health, seen from here or through the API server.
pub fn health<'a>(snapshot: &'a Snapshot, node: &str) -> Option<&'a Probe> {
    let own = || snapshot.host.as_ref().filter(|_| snapshot.stand.node.as_deref() == Some(node))?.proxy_health.as_ref();
    let asked = |p: &&Probe| p.port == HEALTH_PORT && p.target.is_none() && p.node.as_deref() == Some(node);
    own().or_else(|| snapshot.probes.iter().filter(asked).min_by_key(|p| &p.host))
}

/// That kube-proxy of this node says nothing on the node's own loopback, asked through its pod: it is stuck.
pub fn silent_inside<'a>(snapshot: &'a Snapshot, node: &str) -> Option<&'a Probe> {
    let asked = |p: &&Probe| p.vantage == Vantage::PortForward && p.target.is_none() && p.port == METRICS_PORT;
    let mut here = snapshot.probes.iter().filter(asked).filter(|p| p.node.as_deref() == Some(node));
    here.find(|p| p.outcome == Outcome::Silent)
}

fn mode(text: Option<&str>) -> ProxyMode {
    match text {
        Some("nftables") => ProxyMode::Nftables,
        Some("ipvs") => ProxyMode::Ipvs,
        _ => ProxyMode::Iptables,
    }
}

/// The value of the first line `key: value` of a YAML text, at any depth. Enough for the two scalars wanted here, and
/// total on whatever else a person may have written into the ConfigMap.
fn yaml_scalar<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(':'))
        .map(|value| value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']))
        .find(|value| !value.is_empty())
}

/// The items of the first list `key:` of a YAML text, in brackets or one a line; empty for null.
fn yaml_list<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut lines = text.lines().map(str::trim_start);
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or_default().trim();
    let item = |text: &'a str| text.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    let items: Vec<&str> = match value.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default().split(',').map(item).collect(),
        None => lines.map_while(|line| line.strip_prefix('-')).map(item).collect(),
    };
    items.into_iter().filter(|i| !i.is_empty()).collect()
}

/// k3s, RKE2 and MicroK8s run kube-proxy inside themselves or as a static pod.
fn is_embedded(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    let version = info.map(|i| i.kubelet_version.as_str()).unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    version.contains("+k3s")
        || version.contains("+rke2")
        || labels.is_some_and(|l| l.keys().any(|k| k.starts_with("microk8s.io/")))
}

fn has_calico(node: &Node) -> bool {
    node.metadata.annotations.as_ref().is_some_and(|a| a.keys().any(|k| k.starts_with("projectcalico.org/")))
}

/// Whether this DaemonSet's data path may serve Services by itself. Calico's does only with eBPF, kube-router's only
/// when told so; the others may.
fn serves_services(set: &DaemonSet) -> bool {
    let spec: Option<&PodSpec> = set.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let containers: &[Container] = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    match set.metadata.name.as_deref() {
        Some("calico-node") => containers
            .iter()
            .flat_map(|c| c.env.iter().flatten())
            .any(|e| e.name == "FELIX_BPFENABLED" && e.value.as_deref() == Some("true")),
        Some("kube-router") => containers
            .iter()
            .flat_map(|c| c.args.iter().flatten().chain(c.command.iter().flatten()))
            .any(|a| a == "--run-service-proxy" || a == "--run-service-proxy=true"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_found_in_kubeadms_configuration() {
        let config = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nmode: nftables\n";
        assert_eq!(mode(yaml_scalar(config, "mode")), ProxyMode::Nftables);
        assert_eq!(mode(yaml_scalar("mode: \"\"\n", "mode")), ProxyMode::Iptables);
        let kubeconfig = "clusters:\n- cluster:\n    server: https://10.0.0.10:6443 # api\n";
        assert_eq!(yaml_scalar(kubeconfig, "server"), Some("https://10.0.0.10:6443"));
    }

    #[test]
    fn lists_are_found_in_every_spelling() {
        let list = |text| yaml_list(text, "nodePortAddresses");
        assert_eq!(list("mode: \"\"\nnodePortAddresses: null\noomScoreAdj: null\n"), [""; 0]);
        assert_eq!(list("nodePortAddresses: []\n"), [""; 0]);
        assert_eq!(list("nodePortAddresses: [10.0.0.0/8, \"fd00::/8\"]\n"), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(list("nodePortAddresses:\n- primary # own\n- '10.0.0.0/8'\nmode: x\n"), ["primary", "10.0.0.0/8"]);
        assert_eq!(list("mode: nftables\n"), [""; 0]);
    }
}
