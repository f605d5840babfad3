//! What a Node object says.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

/// The Node's name, or "".
pub fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// Whether the Ready condition is True.
pub fn is_ready(node: &Node) -> bool {
    node.status
        .as_ref()
        .and_then(|s| s.conditions.as_ref())
        .is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// Whether the kubelet of the node of this name is known to be silent, so that nobody need wait for it.
pub fn is_silent(nodes: &[Node], called: &str) -> bool {
    nodes.iter().any(|n| name(n) == called && !is_ready(n))
}

/// Status of the Ready condition, with its message or else its reason.
pub fn ready(node: &Node) -> (&str, &str) {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Ready"));
    let said = |text: &'_ Option<String>| text.as_deref().unwrap_or_default().is_empty();
    ready.map_or(("Unknown", ""), |c| {
        let why = if said(&c.message) { &c.reason } else { &c.message };
        (c.status.as_str(), why.as_deref().unwrap_or_default())
    })
}

/// The condition, with status and message, by which a node says that it has no pod network: that of the cloud or the
/// CNI, or the container runtime's word in the kubelet's.
pub fn without_network(node: &Node) -> Option<(&str, &str, &str)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find_map(|c| {
        let message = c.message.as_deref().unwrap_or_default();
        let plugin = NO_PLUGIN.iter().any(|words| message.contains(words));
        let unavailable = c.type_ == "NetworkUnavailable" && c.status == "True";
        let not_ready = c.type_ == "Ready" && c.status == "False" && plugin;
        (unavailable || not_ready).then_some((c.type_.as_str(), c.status.as_str(), message))
    })
}

/// The kubelet's and containerd's words for a missing CNI (k8s.io/kubernetes pkg/kubelet/runtime.go, containerd/go-cni).
const NO_PLUGIN: [&str; 4] =
    ["NetworkPluginNotReady", "network plugin is not ready", "cni plugin not initialized", "cni config uninitialized"];

/// Whether the node carries the control-plane role label.
pub fn is_control_plane(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|l| {
        l.contains_key("node-role.kubernetes.io/control-plane") || l.contains_key("node-role.kubernetes.io/master")
    })
}

/// Annotations in which k3s and RKE2 keep the arguments of a node, those of its configuration file included.
pub const ARGUMENTS: [&str; 2] = ["k3s.io/node-args", "rke2.io/node-args"];

/// The arguments that k3s or RKE2 noted on the node, and the annotation; empty for other distributions.
pub fn arguments(node: &Node) -> Option<(&'static str, Vec<String>)> {
    let annotations = node.metadata.annotations.as_ref()?;
    let (key, text) = ARGUMENTS.iter().find_map(|key| Some((*key, annotations.get(*key)?)))?;
    Some((key, serde_json::from_str(text).unwrap_or_default()))
}

/// The distribution's part of the kubelet's version: `k3s1` of `v1.34.4+k3s1`.
pub fn flavour(node: &Node) -> &str {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    info.and_then(|i| i.kubelet_version.split_once('+')).map_or("", |(_, flavour)| flavour)
}

/// Whether the autoscaler or somebody else is about to take the node away.
pub fn is_leaving(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_some() || taints.iter().any(|t| t.key == "ToBeDeletedByClusterAutoscaler")
}

/// The InternalIP addresses, as text.
pub fn internal_ips(node: &Node) -> Vec<&str> {
    addresses(node, "InternalIP")
}

/// The node's own address that a dialled one leads to: itself where a device of the node holds it, else the InternalIP of
/// its family where the node has one, else the first.
pub fn own_address(node: &Node, held: &[IpAddr], dialled: Option<IpAddr>) -> Option<IpAddr> {
    if let Some(ip) = dialled.filter(|ip| held.contains(ip)) {
        return Some(ip);
    }
    let own: Vec<IpAddr> = internal_ips(node).into_iter().filter_map(|ip| ip.parse().ok()).collect();
    let alike = own.iter().find(|ip| dialled.is_some_and(|dialled| dialled.is_ipv4() == ip.is_ipv4()));
    alike.or(own.first()).copied()
}

/// The addresses of one type.
pub fn addresses<'a>(node: &'a Node, kind: &str) -> Vec<&'a str> {
    node.status
        .as_ref()
        .and_then(|s| s.addresses.as_ref())
        .map(|a| a.iter().filter(|a| a.type_ == kind).map(|a| a.address.as_str()).collect())
        .unwrap_or_default()
}

/// Images that lie on the node, each by the name that a pod would use: with a tag where it has one.
pub fn images(node: &Node) -> impl Iterator<Item = &str> {
    let all = node.status.iter().filter_map(|s| s.images.as_ref()).flatten().filter_map(|i| i.names.as_ref());
    all.filter_map(|names| names.iter().find(|n| !n.contains('@')).or(names.first()).map(String::as_str))
}

/// Pod networks of the node (`spec.podCIDRs`, else `spec.podCIDR`).
pub fn pod_cidrs(node: &Node) -> Vec<&str> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match &spec.pod_cidrs {
        Some(cidrs) if !cidrs.is_empty() => cidrs.iter().map(String::as_str).collect(),
        _ => spec.pod_cidr.as_deref().into_iter().collect(),
    }
}

/// Whether an address lies in a network written as CIDR; false where the text is none.
pub fn cidr_contains(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else { return false };
    let Ok(length) = length.parse::<u32>() else { return false };
    match (network.parse::<IpAddr>(), ip) {
        (Ok(IpAddr::V4(n)), IpAddr::V4(ip)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            u32::from(n) & mask == u32::from(ip) & mask
        }
        (Ok(IpAddr::V6(n)), IpAddr::V6(ip)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            u128::from(n) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn networks_contain_their_addresses_only() {
        assert!(cidr_contains("10.244.1.0/24", "10.244.1.7".parse().unwrap()));
        assert!(!cidr_contains("10.244.1.0/24", "10.244.2.7".parse().unwrap()));
        assert!(cidr_contains("0.0.0.0/0", "10.244.2.7".parse().unwrap()));
        assert!(cidr_contains("fd00:1::/64", "fd00:1::9".parse().unwrap()));
        assert!(!cidr_contains("nonsense", "10.244.2.7".parse().unwrap()));
    }

    #[test]
    fn a_dialled_address_leads_to_the_nodes_own_of_its_family() {
        let node = |ips: &[&str]| -> Node {
            let list: Vec<_> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
            serde_json::from_value(json!({"status": {"addresses": list}})).unwrap()
        };
        let held = ["10.0.0.10".parse().unwrap(), "192.0.2.10".parse().unwrap()];
        let own =
            |ips: &[&str], dialled: &str| own_address(&node(ips), &held, dialled.parse().ok()).unwrap().to_string();
        let both = ["10.0.0.10", "fd30::10"];
        assert_eq!(own(&both, "2001:db8::1"), "fd30::10");
        assert_eq!(own(&both, "203.0.113.10"), "10.0.0.10");
        assert_eq!(own(&["fd30::10", "10.0.0.10"], "203.0.113.10"), "10.0.0.10");
        // Translated on its way, or not known.
        assert_eq!(own(&both[..1], "2001:db8::1"), "10.0.0.10");
        assert_eq!(own(&both, ""), "10.0.0.10");
        assert_eq!(own_address(&node(&[]), &held, None), None);
        // A second card's, which the node object does not name.
        assert_eq!(own(&both, "192.0.2.10"), "192.0.2.10");
    }
}
