//! A node's own firewall, as ufw or Docker leaves it: what is forwarded, or what comes in, is dropped.

use crate::cluster::{Cluster, Node};
use crate::faults::Fault;

/// `iptables -P FORWARD DROP`, as Docker sets it.
pub fn forward_drops(node: &Node) -> Fault {
    rule(node, "FORWARD is DROP", "iptables -w -P FORWARD DROP", "iptables -w -P FORWARD ACCEPT")
}

/// New TCP connections from outside are dropped in INPUT, but for the API server's, the kubelet's and DNS'.
pub fn input_drops(node: &Node) -> Fault {
    const RULE: &str = "INPUT -i eth0 -p tcp --syn -m multiport ! --dports 6443,10250 -j DROP";
    rule(
        node,
        "INPUT is DROP",
        &format!("iptables -w -I {RULE}"),
        &format!("iptables -w -D {RULE} 2>/dev/null || true"),
    )
}

fn rule(node: &Node, what: &str, inject: &str, heal: &str) -> Fault {
    let (place, healed) = (node.place.clone(), node.place.clone());
    let (inject, heal) = (inject.to_owned(), heal.to_owned());
    Fault::new(
        format!("{what} on {}", node.place.name),
        move |_: &Cluster| place.shell(&inject).map(drop),
        move |_: &Cluster| healed.shell(&heal).map(drop),
    )
}
