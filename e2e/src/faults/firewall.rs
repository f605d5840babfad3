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

/// What strangers send to any pod is dropped in FORWARD.
pub fn forward_drops_pods(node: &Node) -> Fault {
    iptables(node, "what is forwarded to pods is dropped", "filter", "FORWARD -i eth0 -d 10.244.0.0/16 -j DROP")
}

/// Packets to the page's nodePort are dropped before anybody translates them.
pub fn raw_drops(node: &Node) -> Fault {
    iptables(node, "the nodePort is dropped in raw", "raw", "PREROUTING -i eth0 -p tcp --dport 30080 -j DROP")
}

/// Packets to the page's nodePort are dropped where they come by IPv6, on whatever device.
pub fn node_port_dropped_v6(node: &Node) -> Fault {
    const RULE: &str = "PREROUTING -p tcp --dport 30080 -j DROP";
    rule(
        node,
        "the nodePort is dropped for IPv6",
        &format!("ip6tables -w -t raw -I {RULE}"),
        &format!("ip6tables -w -t raw -D {RULE} 2>/dev/null || true"),
    )
}

/// As firewalld does it: a table of its own, behind the others, rejects what nobody asked for.
pub fn rejects_in_own_table(node: &Node) -> Fault {
    let rules = "table inet e2e_firewalld { chain forward { type filter hook forward priority filter + 10; \
         ct state established,related accept; iifname eth0 ip daddr 10.244.0.0/16 reject with icmp type host-prohibited; }; }";
    rule(
        node,
        "a table of its own rejects",
        &format!("nft '{rules}'"),
        "nft 'table inet e2e_firewalld; delete table inet e2e_firewalld;'",
    )
}

/// The node itself does not reach its pods' network; what it forwards does.
pub fn output_drops_pods(node: &Node) -> Fault {
    iptables(node, "the node does not reach pods elsewhere", "filter", "OUTPUT -o eth0 -d 10.244.0.0/16 -j DROP")
}

/// What comes from one address is dropped before it is routed, as a filter on the way would.
pub fn one_way(node: &Node, from: &str) -> Fault {
    iptables(
        node,
        "packets are lost in one direction",
        "raw",
        &format!("PREROUTING -s {from} -d 10.244.0.0/16 -j DROP"),
    )
}

/// Packets of more than 600 bytes to this node's pods or from them vanish, as on a way whose MTU nobody knows.
pub fn large_lost(node: &Node) -> Fault {
    let chain = "type filter hook forward priority -300; meta length > 600 drop;";
    rule(
        node,
        "large packets are lost",
        &format!("nft 'table ip e2e_mtu {{ chain forward {{ {chain} }}; }}'"),
        "nft 'table ip e2e_mtu; delete table ip e2e_mtu;'",
    )
}

/// The kernel forwards no packet.
pub fn forwarding_off(node: &Node) -> Fault {
    let write = |value| format!("echo {value} > /proc/sys/net/ipv4/ip_forward");
    rule(node, "ip_forward is 0", &write(0), &write(1))
}

/// Nothing that the node sends leaves it, and nothing that is sent to it arrives: as if it were gone.
pub fn cut_off(node: &Node) -> Fault {
    let chain =
        |hook, device| format!("chain {hook} {{ type filter hook {hook} priority -400; {device} eth0 drop; }};");
    let chains = format!("{} {}", chain("prerouting", "iifname"), chain("output", "oifname"));
    rule(
        node,
        "no packet comes or goes",
        &format!("nft 'table inet e2e_gone {{ {chains} }}'"),
        "nft 'table inet e2e_gone; delete table inet e2e_gone;'",
    )
}

/// The page's nodePort is dropped in INPUT, which no packet to it passes: it is translated before.
pub fn input_drops_port(node: &Node) -> Fault {
    iptables(node, "INPUT drops the nodePort", "filter", "INPUT -p tcp --dport 30080 -j DROP")
}

/// A rule put first in its chain.
fn iptables(node: &Node, what: &str, table: &str, rule_of: &str) -> Fault {
    rule(
        node,
        what,
        &format!("iptables -w -t {table} -I {rule_of}"),
        &format!("iptables -w -t {table} -D {rule_of} 2>/dev/null || true"),
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
