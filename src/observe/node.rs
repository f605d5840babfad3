//! What this machine shows: whether it is a node, which one, and as root its rules, sockets, routes and sysctls.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::dial::{Ask, dial};
use super::firewall::{self, Saved};
use super::program::{json, output};
use super::{network, rules};
use crate::facts::node::{internal_ips, name};
use crate::model::firewall::Counted;
use crate::model::{Gap, GapReason, Host, Input, Outcome, Probe, Rules, Stand, Vantage};
use crate::statedir;

/// kube-proxy's `healthzBindAddress` by default.
const HEALTH_PORT: u16 = 10256;
/// On loopback an answer takes milliseconds, on a node under load some hundred.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);

/// Where we stand. The node is found by the address this machine uses towards the API server.
pub fn stand(server_host: &str, server_port: u16, nodes: &[Node]) -> Stand {
    let own = own_address(server_host, server_port);
    let node = own.and_then(|ip| {
        let ip = ip.to_string();
        nodes.iter().find(|n| internal_ips(n).contains(&ip.as_str())).map(|n| name(n).to_owned())
    });
    Stand { node, root: statedir::is_root(), ec2: is_ec2(), server: format!("{server_host}:{server_port}") }
}

/// The address this machine uses towards the API server. Connecting a UDP socket sends nothing.
fn own_address(server_host: &str, server_port: u16) -> Option<IpAddr> {
    use std::net::ToSocketAddrs;
    let server = (server_host, server_port).to_socket_addrs().ok()?.next()?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(server).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback())
}

/// DMI says so (AWS: "Identify EC2 instances", sys_vendor or a product UUID that starts with ec2).
fn is_ec2() -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
    read("sys_vendor").contains("Amazon EC2") || read("product_uuid").to_lowercase().starts_with("ec2")
}

/// What root sees of the node it stands on. What is missing is a Gap.
pub fn host(nodes: &[Node], stand: &Stand) -> (Option<Host>, Vec<Gap>) {
    let reason = match (&stand.node, stand.root) {
        (None, _) => Some(GapReason::NotOnNode),
        (_, false) => Some(GapReason::NotRoot),
        _ => None,
    };
    if let Some(reason) = reason {
        let gap = |input| Gap { input, subject: None, reason: reason.clone() };
        let inputs = [Input::Rules, Input::NodeSettings, Input::Firewall, Input::OutsiderProbe];
        return (None, inputs.into_iter().map(gap).collect());
    }
    // Each of these waits for programs of the node: side by side they take as long as the slowest.
    std::thread::scope(|scope| {
        let listeners = scope.spawn(listeners);
        let devices = scope.spawn(network::devices);
        let routes = scope.spawn(network::all_routes);
        let rule_tables = scope.spawn(network::rule_tables);
        let nft = scope.spawn(|| output("nft", &["-j", "list", "table", "ip", "kube-proxy"]));
        let saved = Saved::read();
        let firewall = firewall::read(&saved);
        let lost = || GapReason::Failed { message: "a thread of the look ended early".to_owned() };
        let mut gaps = Vec::new();
        let mut gap = |input, subject: Option<&str>, reason| {
            gaps.push(Gap { input, subject: subject.map(str::to_owned), reason });
        };
        let nft = nft.join().unwrap_or_else(|_| Err(lost()));
        let (rules, other_rules) = match kube_proxy_rules(nft, saved) {
            Ok((rules, other)) => (Some(rules), other),
            Err(reason) => {
                gap(Input::Rules, None, reason);
                (None, None)
            }
        };
        let routes = routes.join().unwrap_or_else(|_| Err(lost()));
        let unrouted_pod_cidrs = match &routes {
            Ok(routes) => unrouted(nodes, stand.node.as_deref(), routes),
            Err(reason) => {
                gap(Input::NodeSettings, Some("routes"), reason.clone());
                Vec::new()
            }
        };
        let firewall = firewall.map_err(|reason| gap(Input::Firewall, None, reason)).ok();
        let devices = devices.join().unwrap_or_else(|_| Err(lost()));
        let devices = devices.map_err(|reason| gap(Input::NodeSettings, Some("devices"), reason)).unwrap_or_default();
        let host = Host {
            addresses: devices.iter().flat_map(|d| d.addresses.iter().copied()).collect(),
            rules,
            listeners: listeners.join().unwrap_or_default(),
            pod_sockets: BTreeMap::new(),
            unrouted_pod_cidrs,
            sysctls: sysctls(devices.iter().map(|d| d.name.as_str())),
            proxy_health: None,
            firewall,
            other_rules,
            routes: routes.as_ref().map(network::main_routes).unwrap_or_default(),
            devices,
            rule_tables: rule_tables.join().unwrap_or_default(),
            reverse_path_drops: network::reverse_path_drops().map(|before| Counted { before, after: None }),
        };
        (Some(host), gaps)
    })
}

/// Reads the counters of a host again, as those after the probes.
pub fn count_again(host: &mut Host) {
    if let Some(firewall) = &mut host.firewall {
        firewall::count_again(firewall);
    }
    if let Some(drops) = &mut host.reverse_path_drops {
        drops.after = network::reverse_path_drops();
    }
}

/// Settings of the kernel that decide whether packets go on to pods.
const SYSCTLS: [&str; 7] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
];

/// Those settings, and what is set for single devices other than the node's ends of the pods' links.
fn sysctls<'d>(devices: impl Iterator<Item = &'d str>) -> BTreeMap<String, String> {
    let own = devices.filter(|d| !["veth", "cali", "lxc", "ba"].iter().any(|pod| d.starts_with(pod)));
    // A dot in a device's name stands for itself below /proc/sys.
    let of_device = own.flat_map(|device| {
        ["rp_filter", "route_localnet"].map(|name| {
            (format!("net/ipv4/conf/{device}/{name}"), format!("net.ipv4.conf.{}.{name}", device.replace('.', "/")))
        })
    });
    let all = SYSCTLS.into_iter().map(|path| (path.to_owned(), path.replace('/', ".")));
    all.chain(of_device)
        .filter_map(|(path, name)| {
            let value = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
            Some((name, value.trim().replace('\t', " ")))
        })
        .collect()
}

/// kube-proxy's own health check. It listens on every address, or on loopback alone (k3s, MicroK8s); one that is
/// stopped or stuck takes the connection and says nothing. A refusal says nothing of it: the check can be switched off.
pub fn proxy_health() -> Option<Probe> {
    let ask = Ask { host: "localhost", path: Some("/healthz"), marker: None };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let (outcome, elapsed) = dial(loopback, HEALTH_PORT, &ask, HEALTH_LIMIT);
    let probe = Probe {
        vantage: Vantage::Client,
        target: None,
        host: loopback.to_string(),
        port: HEALTH_PORT,
        node: None,
        pod: None,
        outcome,
        millis: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    };
    Some(probe).filter(|p| p.outcome != Outcome::Refused)
}

/// kube-proxy's rules in whichever mode wrote them, and those of another mode or of iptables' other backend. All are read:
/// after a change of mode, old rules may stay behind.
fn kube_proxy_rules(
    nft: Result<String, GapReason>,
    saved: Result<Saved, GapReason>,
) -> Result<(Rules, Option<Rules>), GapReason> {
    let nft = match nft {
        Ok(text) => Some(rules::from_nft(&json(&text)?)),
        Err(GapReason::Failed { .. }) => None,
        Err(reason) => return Err(reason),
    };
    match nft.filter(|r| r.mode.is_some()) {
        Some(rules) => Ok((rules, saved.ok().map(|s| s.kube_proxy().0).filter(|r| r.mode.is_some()))),
        None => Ok(saved?.kube_proxy()),
    }
}

/// Pod networks of other nodes that no route but the default one covers.
fn unrouted(nodes: &[Node], own: Option<&str>, routes: &Value) -> Vec<String> {
    let routes = routes.as_array().map(Vec::as_slice).unwrap_or_default().iter();
    let routes: Vec<&str> =
        routes.filter(|r| network::leads_on(r)).filter_map(|r| r.get("dst").and_then(Value::as_str)).collect();
    nodes
        .iter()
        .filter(|node| Some(name(node)) != own)
        .filter_map(|node| node.spec.as_ref()?.pod_cidr.as_deref())
        .filter(|cidr| !routes.iter().any(|route| covers(route, cidr)))
        .map(str::to_owned)
        .collect()
}

/// Whether one network contains another. An address without a length is a host route.
fn covers(route: &str, cidr: &str) -> bool {
    let parse = |text: &str| -> Option<(u32, u32)> {
        let (ip, length) = text.split_once('/').unwrap_or((text, "32"));
        Some((ip.parse::<std::net::Ipv4Addr>().ok()?.into(), length.parse().ok()?))
    };
    match (parse(route), parse(cidr)) {
        (Some((net, length)), Some((ip, inner))) if length > 0 && length <= inner && length <= 32 => {
            let mask = u32::MAX << (32 - length);
            net & mask == ip & mask
        }
        _ => false,
    }
}

/// What listens on TCP ports, by port, as `ss` names the processes.
fn listeners() -> BTreeMap<u16, String> {
    let Ok(text) = output("ss", &["-Hltnp"]) else {
        return Default::default();
    };
    text.lines()
        .filter_map(|line| {
            let local = line.split_whitespace().nth(3)?;
            let port = local.rsplit(':').next()?.parse().ok()?;
            let process = line.split("((\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            Some((port, process.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_route_that_leads_nowhere_covers_nothing() {
        let node = |name: &str, cidr: &str| -> Node {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr}})).unwrap()
        };
        let nodes = [node("cp1", "10.244.0.0/24"), node("w1", "10.244.1.0/24"), node("w2", "10.244.2.0/24")];
        let mut routes = json!([{"dst": "default", "gateway": "172.30.0.1", "dev": "eth0"},
            {"dst": "10.244.2.0/24", "gateway": "172.30.0.4", "dev": "eth0"}]);
        assert_eq!(unrouted(&nodes, Some("cp1"), &routes), ["10.244.1.0/24"]);
        for (kind, expected) in [("blackhole", 1), ("unreachable", 1), ("prohibit", 1), ("throw", 1), ("unicast", 0)] {
            let last = json!({"type": kind, "dst": "10.244.0.0/16", "dev": "eth0"});
            let with: Vec<_> = routes.as_array_mut().unwrap().iter().cloned().chain([last]).collect();
            assert_eq!(unrouted(&nodes, Some("cp1"), &json!(with)).len(), expected, "{kind}");
        }
    }

    #[test]
    fn a_route_covers_what_lies_inside_it() {
        for (route, cidr, expected) in [
            ("10.244.1.0/24", "10.244.1.0/24", true),
            ("10.244.0.0/16", "10.244.1.0/24", true),
            ("10.244.2.0/24", "10.244.1.0/24", false),
            ("10.244.1.0/25", "10.244.1.0/24", false),
            ("default", "10.244.1.0/24", false),
            ("0.0.0.0/0", "10.244.1.0/24", false),
        ] {
            assert_eq!(covers(route, cidr), expected, "{route} {cidr}");
        }
    }
}
