//! How the network plugin carries packets of pods from one node to another.

use std::net::IpAddr;

use super::Facts;
use super::node;
use super::passage::device_to;
use crate::model::Host;

/// What the network between the nodes sees of a packet for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// A UDP packet to this port of the other node: VXLAN, Geneve, WireGuard.
    Udp(u16),
    /// IP in IP: protocol 4.
    Ipip,
    /// The pod's own packet.
    None,
}

/// Devices of network plugins, by the start of their names (flannel, Calico, Cilium, Antrea and OVN-Kubernetes).
const DEVICES: [(&str, Encapsulation); 9] = [
    ("flannel-wg", Encapsulation::Udp(51_820)),
    ("flannel.", Encapsulation::Udp(8472)),
    ("vxlan.calico", Encapsulation::Udp(4789)),
    ("wireguard.cali", Encapsulation::Udp(51_820)),
    ("tunl0", Encapsulation::Ipip),
    ("cilium_vxlan", Encapsulation::Udp(8472)),
    ("cilium_geneve", Encapsulation::Udp(6081)),
    ("genev_sys_6081", Encapsulation::Udp(6081)),
    ("cilium_wg0", Encapsulation::Udp(51_871)),
];

/// By the route of this node to the pod, else by what flannel notes on the pod's node.
pub fn between(facts: &Facts<'_>, host: &Host, to: &str, pod: IpAddr) -> Option<Encapsulation> {
    let far = facts.node(to)?;
    let device = device_to(host, pod);
    if let Some((_, known)) = device.and_then(|d| DEVICES.iter().find(|(start, _)| d.starts_with(start))) {
        return Some(*known);
    }
    let hop = host.routes.iter().find(|r| node::cidr_contains(&r.to, pod)).and_then(|r| r.via);
    if hop.is_some_and(|via| node::internal_ips(far).iter().any(|ip| ip.parse() == Ok(via))) {
        return Some(Encapsulation::None);
    }
    let backend = far.metadata.annotations.as_ref()?.get("flannel.alpha.coreos.com/backend-type")?;
    match backend.as_str() {
        "vxlan" => Some(Encapsulation::Udp(8472)),
        "wireguard" => Some(Encapsulation::Udp(51_820)),
        "ipip" => Some(Encapsulation::Ipip),
        "host-gw" => Some(Encapsulation::None),
        _ => None,
    }
}
