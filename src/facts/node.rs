//! What a Node object says.

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

/// Whether the node carries the control-plane role label.
pub fn is_control_plane(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|l| {
        l.contains_key("node-role.kubernetes.io/control-plane") || l.contains_key("node-role.kubernetes.io/master")
    })
}

/// The InternalIP addresses, as text.
pub fn internal_ips(node: &Node) -> Vec<&str> {
    addresses(node, "InternalIP")
}

/// The addresses of one type.
pub fn addresses<'a>(node: &'a Node, kind: &str) -> Vec<&'a str> {
    node.status
        .as_ref()
        .and_then(|s| s.addresses.as_ref())
        .map(|a| a.iter().filter(|a| a.type_ == kind).map(|a| a.address.as_str()).collect())
        .unwrap_or_default()
}
