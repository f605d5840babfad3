//! What this machine shows: whether it is a node, which one, and as root its rules, sockets, routes and sysctls.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::dial::{Ask, dial};
use super::rules;
use crate::facts::node::{internal_ips, name};
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
        return (None, vec![gap(Input::Rules), gap(Input::NodeSettings), gap(Input::OutsiderProbe)]);
    }
    let mut gaps = Vec::new();
    let proxy_health = std::thread::spawn(proxy_health);
    let rules = match kube_proxy_rules() {
        Ok(rules) => Some(rules),
        Err(reason) => {
            gaps.push(Gap { input: Input::Rules, subject: None, reason });
            None
        }
    };
    let routes = command("ip", &["-j", "route", "show", "table", "all"]).and_then(|text| json(&text));
    let unrouted_pod_cidrs = match &routes {
        Ok(routes) => unrouted(nodes, stand.node.as_deref(), routes),
        Err(reason) => {
            gaps.push(Gap { input: Input::NodeSettings, subject: Some("routes".to_owned()), reason: reason.clone() });
            Vec::new()
        }
    };
    let sysctls = ["net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter"]
        .iter()
        .filter_map(|path| {
            let value = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
            Some((path.replace('/', "."), value.trim().to_owned()))
        })
        .collect();
    let host = Host {
        addresses: Vec::new(),
        rules,
        listeners: listeners(),
        unrouted_pod_cidrs,
        sysctls,
        proxy_health: proxy_health.join().ok().flatten(),
    };
    (Some(host), gaps)
}

/// kube-proxy's own health check. It listens on every address, or on loopback alone (k3s, MicroK8s); one that is
/// stopped or stuck takes the connection and says nothing. A refusal says nothing of it: the check can be switched off.
fn proxy_health() -> Option<Probe> {
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

/// kube-proxy's rules in whichever mode wrote them. Both are read: after a change of mode, old rules may stay behind.
fn kube_proxy_rules() -> Result<Rules, GapReason> {
    let nft = match command("nft", &["-j", "list", "table", "ip", "kube-proxy"]) {
        Ok(text) => Some(rules::from_nft(&json(&text)?)),
        Err(GapReason::Failed { .. }) => None,
        Err(reason) => return Err(reason),
    };
    if let Some(rules) = nft.filter(|r| r.mode.is_some()) {
        return Ok(rules);
    }
    Ok(rules::from_iptables_save(&command("iptables-save", &[])?))
}

/// Pod networks of other nodes that no route but the default one covers.
fn unrouted(nodes: &[Node], own: Option<&str>, routes: &Value) -> Vec<String> {
    let routes: Vec<&str> = routes
        .as_array()
        .map(|r| r.iter().filter_map(|r| r.get("dst").and_then(Value::as_str)).collect())
        .unwrap_or_default();
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
fn listeners() -> std::collections::BTreeMap<u16, String> {
    let Ok(text) = command("ss", &["-Hltnp"]) else {
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

fn json(text: &str) -> Result<Value, GapReason> {
    serde_json::from_str(text).map_err(|error| GapReason::Failed { message: error.to_string() })
}

/// The output of a program of the node.
fn command(program: &str, args: &[&str]) -> Result<String, GapReason> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(GapReason::Failed { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(GapReason::NoProgram { program: program.to_owned() })
        }
        Err(error) => Err(GapReason::Failed { message: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
