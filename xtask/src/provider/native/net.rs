//! The network between the members: the nodes on a bridge inside the gateway, the client on a link of its own. The
//! gateway has no way out, so that no packet of a cluster leaves the machine.
//!
//! As at a cloud: the public address belongs to no interface, the gateway translates it 1:1 to the control plane's
//! internal address (and back), and a chain in front of the translation stands in for the security group.

use anyhow::Result;

use super::plan::{CLIENT_ADDRESS, CLIENT_GATEWAY, METADATA_ADDRESS, PUBLIC_ADDRESS, Plan};
use super::processes::Running;
use crate::run;

/// The gateway's bridge with the nodes.
const NODES: &str = "nodes";
/// The gateway's link to the client.
const CLIENTS: &str = "clients";

/// Where the gateway's default route leads: to a switch without a port. A packet for nowhere is refused on its way
/// there, since the kernel itself says "no route" only five times in a row and then once a second.
const OUTSIDE: &str = "outside";

/// Lays the cables between members that have none yet, and sets addresses, routes and the gateway's translation.
pub fn connect(plan: &Plan, gateway: &Running, client: &Running, nodes: &[Running]) -> Result<()> {
    gateway.feed(&["ip", "-batch", "-"], &bridge(plan))?;
    // Both ends are made where they belong: nothing appears in the machine's own network.
    let cables: Vec<String> = nodes
        .iter()
        .map(|n| cable(gateway, &format!("p-{}", n.member), n))
        .chain([cable(gateway, CLIENTS, client)])
        .collect();
    gateway_less_batch(&cables.concat())?;
    let ports: String =
        nodes.iter().map(|n| format!("link set p-{0} master {NODES}\nlink set p-{0} up\n", n.member)).collect();
    gateway.feed(
        &["ip", "-batch", "-"],
        &format!("{ports}addr add {CLIENT_GATEWAY}/24 dev {CLIENTS}\nlink set {CLIENTS} up\n"),
    )?;
    gateway.feed(&["nft", "-f", "-"], &translation(plan))?;
    client.feed(
        &["ip", "-batch", "-"],
        &format!("addr add {CLIENT_ADDRESS}/24 dev eth0\nlink set eth0 up\nroute add default via {CLIENT_GATEWAY}\n"),
    )?;
    for (node, running) in plan.nodes.iter().zip(nodes) {
        running.feed(&["ip", "-batch", "-"], &node_network(plan, &node.name))?;
    }
    Ok(())
}

fn gateway_less_batch(text: &str) -> Result<()> {
    run::feed(&mut run::command(&["ip", "-batch", "-"]), text).map(drop)
}

fn cable(gateway: &Running, port: &str, member: &Running) -> String {
    format!("link add name {port} netns {} type veth peer name eth0 netns {}\n", gateway.pid, member.pid)
}

fn bridge(plan: &Plan) -> String {
    let mut text = format!(
        "link add {NODES} type bridge\naddr add {}/24 dev {NODES}\nlink set {NODES} up\n\
         link add {OUTSIDE} type bridge\nlink set {OUTSIDE} up\nroute add default dev {OUTSIDE}\n",
        plan.gateway()
    );
    if plan.request.ec2 {
        text.push_str(&format!("addr add {METADATA_ADDRESS}/32 dev {NODES} scope host\n"));
    }
    text
}

/// A node's address, its way out, and a route to the pods of each other node.
fn node_network(plan: &Plan, name: &str) -> String {
    let mut text = String::new();
    for node in &plan.nodes {
        if node.name == name {
            text.push_str(&format!("addr add {}/24 dev eth0\nlink set eth0 up\n", node.address));
        }
    }
    text.push_str(&format!("route add default via {}\n", plan.gateway()));
    for node in plan.nodes.iter().filter(|n| n.name != name) {
        text.push_str(&format!("route add {} via {}\n", node.pod_cidr(), node.address));
    }
    text
}

/// The gateway's rules. Tests add drops to `ip security_group inbound`.
fn translation(plan: &Plan) -> String {
    let inside = plan.control_plane().address;
    let nodes = plan.node_range();
    format!(
        "table ip security_group {{
  chain inbound {{ type filter hook prerouting priority -150; policy accept; }}
}}
table ip internet {{
  chain to_inside {{ type nat hook prerouting priority dstnat; policy accept;
    ip daddr {PUBLIC_ADDRESS} dnat to {inside}
  }}
  chain to_outside {{ type nat hook postrouting priority srcnat; policy accept;
    ip saddr {inside} ip daddr {inside} ct status dnat snat to {PUBLIC_ADDRESS}
    ip saddr {inside} oifname \"{CLIENTS}\" snat to {PUBLIC_ADDRESS}
    ip saddr {nodes} ip daddr {inside} ct status dnat masquerade
    ip saddr {nodes} oifname \"{CLIENTS}\" masquerade
  }}
  chain between {{ type filter hook forward priority filter; policy accept;
    oifname \"{OUTSIDE}\" reject with icmp type net-unreachable
    ct state established,related accept
    iifname \"{CLIENTS}\" ct status dnat accept
    iifname \"{CLIENTS}\" reject with icmp type net-unreachable
  }}
  chain gateway_itself {{ type filter hook input priority filter; policy accept;
    ct state established,related accept
    iifname \"{CLIENTS}\" meta l4proto {{ tcp, udp }} reject with icmp type net-unreachable
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::plan::{ProxyMode, Request};
    use super::*;

    #[test]
    fn a_node_routes_to_the_others_pods_only() {
        let request = Request {
            name: "x".into(),
            version: "v1.37.2".into(),
            workers: 2,
            proxy_mode: ProxyMode::Iptables,
            ec2: true,
        };
        let plan = Plan::new(request, 1);
        assert_eq!(
            node_network(&plan, "w1"),
            "addr add 172.30.1.11/24 dev eth0\nlink set eth0 up\nroute add default via 172.30.1.1\nroute add 10.244.0.0/24 via 172.30.1.10\nroute add 10.244.2.0/24 via 172.30.1.12\n"
        );
        assert!(translation(&plan).contains("ip daddr 203.0.113.10 dnat to 172.30.1.10"));
        assert!(bridge(&plan).contains("169.254.169.254/32"));
    }
}
