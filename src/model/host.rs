//! Where the command stands, and what it sees of the node it stands on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::firewall::Counted;
use super::{Firewall, Probe};

/// The standpoint: on which node, with which rights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stand {
    /// Name of the node this command runs on, found by comparing addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Effective uid 0.
    pub root: bool,
    /// DMI says this is an EC2 instance.
    #[serde(default)]
    pub ec2: bool,
    /// `host:port` of the API server.
    pub server: String,
}

/// kube-proxy's data path, as found in the rules or its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    Iptables,
    Nftables,
    Ipvs,
}

/// Where one nodePort leads on this node, read from kube-proxy's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePortRule {
    pub port: u16,
    /// The DNAT destinations behind it; empty where the rule rejects or drops.
    pub backends: Vec<SocketAddr>,
    /// An explicit REJECT or DROP for "no endpoints".
    #[serde(default)]
    pub rejects: bool,
}

/// kube-proxy's rules on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// None where no rule of any kube-proxy is there at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProxyMode>,
    /// Whether the rules know any Service at all (its cluster IP).
    pub services: bool,
    pub node_ports: Vec<NodePortRule>,
}

impl Rules {
    /// The rule for one nodePort.
    pub fn node_port(&self, port: u16) -> Option<&NodePortRule> {
        self.node_ports.iter().find(|r| r.port == port)
    }
}

/// This program, as `ss` names it.
pub const OWN_PROCESS: &str = "kubectl-bookacc";

/// What root sees on the node it stands on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Addresses of this node's devices.
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Rules>,
    /// Process name of what listens on a port, by port, cut at 15 characters; ours is [`OWN_PROCESS`].
    #[serde(default)]
    pub listeners: BTreeMap<u16, String>,
    /// What the pods on this node listen on, by `namespace/name`: of those that refused a probe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_sockets: BTreeMap<String, Vec<SocketAddr>>,
    /// Pod networks (CIDR as text) of other nodes that this node's routing table does not lead to.
    #[serde(default)]
    pub unrouted_pod_cidrs: Vec<String>,
    /// Selected sysctls by name, as read.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// What kube-proxy's health check on this node's loopback brings; none where nobody listens there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_health: Option<Probe>,
    /// None where the firewall could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// kube-proxy's rules in iptables' other backend, or in iptables beside nftables, where both hold some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_rules: Option<Rules>,
    /// Devices that are up, loopback left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The main routing table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Routing tables that a rule of this node sends packets to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_tables: Vec<String>,
    /// Packets dropped because no answer would go out where they came in (rp_filter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_path_drops: Option<Counted>,
}

/// A network device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub name: String,
    #[serde(default)]
    pub mtu: u32,
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// A CIDR, an address, or `default`.
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    pub device: String,
}
