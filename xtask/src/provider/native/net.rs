//! The network between the members: the nodes on a bridge inside the gateway, the client on a link of its own. The
//! gateway has no way out, so that no packet of a cluster leaves the machine.
//!
//! As at a cloud: the public address belongs to no interface, the gateway translates it 1:1 to the control plane's
//! internal address (and back), and a chain in front of the translation stands in for the security group.

use std::fmt::Display;
use std::net::Ipv4Addr;

use anyhow::Result;

use super::dual_stack::{self, CLIENT_ADDRESS_V6, CLIENT_GATEWAY_V6, PUBLIC_ADDRESS_V6};
use super::plan::{CLIENT_ADDRESS, CLIENT_GATEWAY, METADATA_ADDRESS, PUBLIC_ADDRESS, Plan};
use super::processes::Running;
use crate::run;

/// The gateway's bridge with the nodes.
const NODES: &str = "nodes";
/// The gateway's link to the client.
pub const CLIENTS: &str = "clients";

/// Where the gateway's default route leads: to a switch without a port. A packet for nowhere is refused on its way
/// there, since the kernel itself says "no route" only five times in a row and then once a second.
pub const OUTSIDE: &str = "outside";

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
        &format!("{ports}addr add {CLIENT_GATEWAY}/24 dev {CLIENTS}\nlink set {CLIENTS} up\n{}", gateway_v6(plan)),
    )?;
    gateway.feed(&["nft", "-f", "-"], &translation(plan))?;
    client.feed(
        &["ip", "-batch", "-"],
        &format!(
            "addr add {CLIENT_ADDRESS}/24 dev eth0\nlink set eth0 up\nroute add default via {CLIENT_GATEWAY}\n{}",
            client_v6(plan)
        ),
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
    text + &node_network_v6(plan, name)
}

/// As [`node_network`], the links being up: a route of IPv6 needs that.
fn node_network_v6(plan: &Plan, name: &str) -> String {
    let mut text = String::new();
    let all = || plan.nodes.iter().filter_map(|node| Some((node.name == name, node.v6.as_ref()?)));
    for (_, own) in all().filter(|(is_own, _)| *is_own) {
        let way_out = dual_stack::gateway(plan.generation);
        text.push_str(&format!("addr add {}/64 dev eth0 nodad\nroute add default via {way_out}\n", own.address));
    }
    for (_, other) in all().filter(|(is_own, _)| !is_own) {
        text.push_str(&format!("route add {} via {}\n", other.pod_cidr(), other.address));
    }
    text
}

/// The gateway's addresses towards nodes and client, and its default route. Both links are up.
fn gateway_v6(plan: &Plan) -> String {
    if !plan.request.dual_stack {
        return String::new();
    }
    format!(
        "addr add {}/64 dev {NODES} nodad\naddr add {CLIENT_GATEWAY_V6}/64 dev {CLIENTS} nodad\n\
         route add ::/0 dev {OUTSIDE}\n",
        dual_stack::gateway(plan.generation)
    )
}

fn client_v6(plan: &Plan) -> String {
    if !plan.request.dual_stack {
        return String::new();
    }
    format!("addr add {CLIENT_ADDRESS_V6}/64 dev eth0 nodad\nroute add default via {CLIENT_GATEWAY_V6}\n")
}

/// The gateway's rules for a control plane at `inside`, without IPv6.
pub fn gateway_rules(inside: Ipv4Addr, nodes: &str) -> String {
    translation_of("ip", &PUBLIC_ADDRESS, &inside, nodes, "icmp type net-unreachable")
}

/// The gateway's rules. Tests add drops to `ip security_group inbound`, and to `ip6` where there is one.
fn translation(plan: &Plan) -> String {
    let inside = plan.control_plane();
    let v4 = gateway_rules(inside.address, &plan.node_range());
    let v6 = inside.v6.as_ref().map(|inside| {
        let nodes = dual_stack::node_range(plan.generation);
        translation_of("ip6", &PUBLIC_ADDRESS_V6, &inside.address, &nodes, "icmpv6 type no-route")
    });
    v4 + &v6.unwrap_or_default()
}

/// The rules of one family, as nft names it.
fn translation_of(family: &str, public: &dyn Display, inside: &dyn Display, nodes: &str, refusal: &str) -> String {
    format!(
        "table {family} security_group {{
  chain inbound {{ type filter hook prerouting priority -150; policy accept; }}
}}
table {family} internet {{
  chain to_inside {{ type nat hook prerouting priority dstnat; policy accept;
    {family} daddr {public} dnat to {inside}
  }}
  chain to_outside {{ type nat hook postrouting priority srcnat; policy accept;
    {family} saddr {inside} {family} daddr {inside} ct status dnat snat to {public}
    {family} saddr {inside} oifname \"{CLIENTS}\" snat to {public}
    {family} saddr {nodes} {family} daddr {inside} ct status dnat masquerade
    {family} saddr {nodes} oifname \"{CLIENTS}\" masquerade
  }}
  chain between {{ type filter hook forward priority filter; policy accept;
    oifname \"{OUTSIDE}\" reject with {refusal}
    ct state established,related accept
    iifname \"{CLIENTS}\" ct status dnat accept
    iifname \"{CLIENTS}\" reject with {refusal}
  }}
  chain gateway_itself {{ type filter hook input priority filter; policy accept;
    ct state established,related accept
    iifname \"{CLIENTS}\" meta l4proto {{ tcp, udp }} reject with {refusal}
  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::{ProxyMode, Request};
    use super::*;

    fn plan(dual_stack: bool) -> Plan {
        let request = Request {
            name: "x".into(),
            version: "v1.37.2".into(),
            workers: 2,
            proxy_mode: ProxyMode::Iptables,
            ec2: true,
            dual_stack,
            image: None,
        };
        Plan::new(request, 1)
    }

    #[test]
    fn a_node_routes_to_the_others_pods_only() {
        let plan = plan(false);
        assert_eq!(
            node_network(&plan, "w1"),
            "addr add 172.30.1.11/24 dev eth0\nlink set eth0 up\nroute add default via 172.30.1.1\nroute add 10.244.0.0/24 via 172.30.1.10\nroute add 10.244.2.0/24 via 172.30.1.12\n"
        );
        assert!(translation(&plan).contains("ip daddr 203.0.113.10 dnat to 172.30.1.10"));
        assert!(bridge(&plan).contains("169.254.169.254/32"));
    }

    #[test]
    fn the_second_family_comes_beside_the_first() {
        let (one, both) = (plan(false), plan(true));
        assert_eq!(
            node_network(&both, "w1"),
            node_network(&one, "w1")
                + "addr add fd30:0:0:1::11/64 dev eth0 nodad\nroute add default via fd30:0:0:1::1\nroute add fd00:10:244::/64 via fd30:0:0:1::10\nroute add fd00:10:244:2::/64 via fd30:0:0:1::12\n"
        );
        assert_eq!(gateway_v6(&one) + &client_v6(&one), "");
        assert!(gateway_v6(&both).contains("addr add fd30:0:0:1::1/64 dev nodes nodad\n"));
        assert!(client_v6(&both).ends_with("route add default via 2001:db8:198::1\n"));
        let rules = translation(&both);
        assert!(rules.starts_with(&translation(&one)) && !translation(&one).contains("ip6"));
        assert!(rules.contains("ip6 daddr 2001:db8:113::10 dnat to fd30:0:0:1::10"), "{rules}");
    }
}
