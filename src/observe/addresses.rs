//! The addresses a browser may dial (diagnosis.md §4.5), best first, without asking any cloud API but the node's own metadata.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;

use super::client::Cluster;
use crate::facts::node;
use crate::model::{Address, AddressSource, Stand};

/// Node annotations that hold an address reachable from outside (k3s, flannel, RKE).
const ANNOTATIONS: [&str; 4] = [
    "k3s.io/external-ip",
    "flannel.alpha.coreos.com/public-ip-overwrite",
    "flannel.alpha.coreos.com/public-ip",
    "rke.cattle.io/external-ip",
];

/// AWS' instance metadata service (IMDSv2).
const METADATA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// What the user said about addresses.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Host part of `--address`.
    pub host: Option<String>,
    /// False with `--no-imds`.
    pub imds: bool,
}

/// All candidates without repetition, in order of preference. With `--address` only that one.
pub async fn candidates(cluster: &Cluster, nodes: &[Node], stand: &Stand, wanted: &Wanted) -> Vec<Address> {
    let by_internal = |ip: &IpAddr| {
        let text = ip.to_string();
        nodes.iter().find(|n| node::internal_ips(n).contains(&text.as_str())).map(|n| node::name(n).to_owned())
    };
    let control_planes: Vec<&Node> = nodes.iter().filter(|n| node::is_control_plane(n)).collect();
    // An address that is not a node's own leads to the API server's machine where there is only one; on such a
    // node itself it is this node's (1:1 NAT).
    let through_nat = match (control_planes.as_slice(), nodes) {
        ([one], _) => Some(node::name(one).to_owned()),
        (_, [one]) => Some(node::name(one).to_owned()),
        _ => None,
    };
    let mut found: Vec<Address> = Vec::new();
    if let Some(host) = &wanted.host {
        for ip in resolve(host).await {
            let typed = host.parse::<IpAddr>().is_err().then(|| host.clone());
            let node = by_internal(&ip).or_else(|| stand.node.clone()).or_else(|| through_nat.clone());
            found.push(Address { ip, host: typed, source: AddressSource::Flag, node });
        }
        return found;
    }
    if wanted.imds
        && stand.ec2
        && stand.node.is_some()
        && let Ok(Some(ip)) = tokio::task::spawn_blocking(public_ipv4).await
    {
        found.push(Address { ip, host: None, source: AddressSource::Metadata, node: stand.node.clone() });
    }
    for n in nodes {
        for ip in node::addresses(n, "ExternalIP").iter().filter_map(|a| a.parse().ok()) {
            let node = Some(node::name(n).to_owned());
            found.push(Address { ip, host: None, source: AddressSource::ExternalIp, node });
        }
        let annotations = n.metadata.annotations.as_ref();
        for ip in ANNOTATIONS.iter().filter_map(|key| annotations?.get(*key)?.parse().ok()) {
            let node = Some(node::name(n).to_owned());
            found.push(Address { ip, host: None, source: AddressSource::Annotation, node });
        }
    }
    for ip in resolve(&cluster.server_host).await.into_iter().filter(|ip| !ip.is_loopback()) {
        let host = cluster.server_host.parse::<IpAddr>().is_err().then(|| cluster.server_host.clone());
        let source = if by_internal(&ip).is_some() { AddressSource::InternalIp } else { AddressSource::Kubeconfig };
        found.push(Address { ip, host, source, node: by_internal(&ip).or_else(|| through_nat.clone()) });
    }
    for ip in super::certificate::subject_ips(cluster).await {
        if by_internal(&ip).is_none() && is_public(&ip) {
            let node = through_nat.clone();
            found.push(Address { ip, host: None, source: AddressSource::CertificateSan, node });
        }
    }
    let own_first = |n: &&Node| (stand.node.as_deref() != Some(node::name(n)), !node::is_control_plane(n));
    let mut ordered: Vec<&Node> = nodes.iter().collect();
    ordered.sort_by_key(own_first);
    for n in ordered {
        for ip in node::internal_ips(n).iter().filter_map(|a| a.parse().ok()) {
            let node = Some(node::name(n).to_owned());
            found.push(Address { ip, host: None, source: AddressSource::InternalIp, node });
        }
    }
    found.sort_by_key(|a| a.source);
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|a| seen.insert(a.ip));
    found
}

/// An address that routers of the internet would carry: not private, shared, link-local or loopback.
pub fn is_public(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        IpAddr::V6(ip) => {
            let first = ip.segments()[0];
            !(ip.is_loopback() || ip.is_unspecified() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80)
        }
    }
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    let host = host.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        (host.as_str(), 0).to_socket_addrs().map(|found| found.map(|a| a.ip()).collect()).unwrap_or_default()
    });
    match tokio::time::timeout(Duration::from_secs(3), lookup).await {
        Ok(Ok(found)) => found,
        _ => Vec::new(),
    }
}

/// The instance's public address, asked with a session token as IMDSv2 demands.
fn public_ipv4() -> Option<IpAddr> {
    let token = metadata("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60")?;
    metadata("GET", "/latest/meta-data/public-ipv4", &format!("X-aws-ec2-metadata-token: {token}"))?.parse().ok()
}

fn metadata(method: &str, path: &str, header: &str) -> Option<String> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&METADATA, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.set_write_timeout(Some(limit)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        METADATA.ip()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.take(8 * 1024).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split_whitespace().nth(1) == Some("200")).then(|| body.trim().to_owned())
}
