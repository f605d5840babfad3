//! The probes of one look: first those that say whether the page answers, then, where it does not, those that say where it breaks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared, join_all};

use super::client::Cluster;
use super::dial::{Ask, dial};
use super::objects::KUBE_SYSTEM;
use super::rights::{PORT_FORWARD, Rights};
use super::{environment, proxies};
use crate::facts::reach::SSH;
use crate::facts::spared::spares;
use crate::facts::{Candidates, Index, ServiceFacts, node, pod, proxy};
use crate::model::{Address, Gap, GapReason, HttpProxy, Input, Outcome, Probe, Snapshot, Target, Vantage};

/// Long enough for a rate-limited ICMP refusal (1.0 s) and for "no route to host" (3.05 s).
pub const DIAL_LIMIT: Duration = Duration::from_millis(3500);
/// Long enough to see that nobody answers; why, it does not tell.
pub const GLANCE_LIMIT: Duration = Duration::from_millis(800);
/// At most so many addresses, nodes and pods are probed for a target.
const MOST: usize = 6;
const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

type Pending<'a> = BoxFuture<'a, Result<Probe, Gap>>;

/// What a vantage gives: the outcome and how long it took, or why it could not be had.
type Tried = Result<(Outcome, Duration), GapReason>;

/// What the probes of a phase brought: see [`file`].
pub type Brought = Vec<Result<Probe, Gap>>;

/// Dials every candidate address of every target, and as root the node through an outsider namespace; each dial may
/// take `limit`.
pub async fn first(seen: &Snapshot, limit: Duration) -> Brought {
    let mut pending: Vec<Pending<'_>> = Vec::new();
    let index = Index::of(seen);
    for (target, port) in seen.targets.iter().filter_map(|t| Some((t, node_port(&index, t)?))) {
        for address in seen.addresses.iter().take(MOST) {
            pending.push(client(address, target, port, limit).boxed());
        }
    }
    if let Some(proxy) = &seen.client.http_proxy {
        for (target, port) in seen.targets.iter().filter_map(|t| Some((t, node_port(&index, t)?))) {
            for address in seen.addresses.iter().filter(|a| !spares(&proxy.spared, a)).take(2) {
                pending.push(through_proxy(proxy, address, target, port, limit).boxed());
            }
        }
    }
    #[cfg(target_os = "linux")]
    let outsiders = outsiders(seen, limit);
    #[cfg(not(target_os = "linux"))]
    let outsiders = async { Vec::new() };
    let (mut brought, outsiders) = futures::join!(join_all(pending), outsiders);
    brought.extend(outsiders);
    brought
}

/// Whether dials were given up before they could tell why nobody answers.
pub fn is_unclear(snapshot: &Snapshot) -> bool {
    let given_up = |o: &Outcome| matches!(o, Outcome::Timeout | Outcome::Silent | Outcome::Stalled);
    snapshot.probes.iter().any(|p| p.vantage != Vantage::Kubelet && given_up(&p.outcome))
}

/// Forgets what [`first`] brought.
pub fn forget_first(snapshot: &mut Snapshot) {
    snapshot.probes.retain(|p| p.vantage == Vantage::Kubelet);
    snapshot.gaps.retain(|g| !matches!(g.input, Input::ClientProbe | Input::OutsiderProbe | Input::HttpProxy));
}

/// From the node that we stand on to the pods of the first targets; each dial may take `limit`.
pub async fn to_pods(seen: &Snapshot, limit: Duration) -> Brought {
    let mut pending: Vec<Pending<'_>> = Vec::new();
    let index = Index::of(seen);
    for target in seen.targets.iter().filter(|_| seen.stand.node.is_some()).take(MOST) {
        let facts = ServiceFacts::derive(&index, target);
        for (ip, _, base) in pods(target, facts.as_ref()) {
            pending.push(to_pod(from_here(&base, ip), ip, target, limit).boxed());
        }
    }
    join_all(pending).await
}

/// The ready pods of a target that are asked: the address, the name, and the probe of it through the API server.
fn pods<'a>(target: &Target, service: Option<&ServiceFacts<'a>>) -> Vec<(std::net::IpAddr, &'a str, Probe)> {
    let ready = service.into_iter().flat_map(|s| &s.endpoints).filter(|e| e.ready).take(MOST / 2);
    ready
        .filter_map(|endpoint| {
            let (pod, port) = (endpoint.pod?, endpoint.port?);
            let base = probe(Vantage::PodProxy, target, &format!("{}/{pod}", target.namespace), port);
            let base = Probe { pod: Some(pod.to_owned()), node: endpoint.node.map(str::to_owned), ..base };
            Some((endpoint.ip, pod, base))
        })
        .collect()
}

/// The same pod, from this node.
fn from_here(base: &Probe, ip: std::net::IpAddr) -> Probe {
    Probe { vantage: Vantage::NodeToPod, host: ip.to_string(), ..base.clone() }
}

async fn to_pod(base: Probe, ip: std::net::IpAddr, target: &Target, limit: Duration) -> Result<Probe, Gap> {
    let (port, path, marker) = (base.port, target.path.clone(), target.marker.clone());
    fill(base, Input::NodeSettings, blocking(move || ask(ip, port, &path, marker.as_deref(), limit))).await
}

/// Looks behind: pods through the API server, by port-forward and from this node; nodes through the API server.
/// Only for targets that did not answer rightly, and the pods of one whose answer says little of the others.
pub async fn second(cluster: &Cluster, seen: &Snapshot) -> Brought {
    let mut pending: Vec<Pending<'_>> = Vec::new();
    let index = Index::of(seen);
    let looks = seen.targets.iter().filter_map(|target| {
        let (facts, answered) = (ServiceFacts::derive(&index, target), answered(seen, target));
        let enough = answered && !(seen.targets.len() <= MOST && facts.as_ref().is_some_and(is_doubtful));
        (!enough).then_some((target, facts, answered))
    });
    let looks: Vec<_> = looks.collect();
    let mut homes: BTreeSet<String> = looks.iter().map(|(target, ..)| target.namespace.clone()).collect();
    if looks.iter().any(|(.., answered)| !answered) {
        homes.insert(KUBE_SYSTEM.to_owned());
    }
    // What is dialled from here does not wait for it.
    let rights = Rights::ask(cluster, homes).map(Arc::new).shared();
    for (target, facts, answered) in looks {
        let right = |resource| Right { rights: rights.clone(), namespace: &target.namespace, resource };
        for (ip, pod, base) in pods(target, facts.as_ref()) {
            let port = base.port;
            let asked = right("pods/proxy").guard(proxies::pod(cluster, target, pod, port));
            pending.push(fill(base.clone(), Input::PodProxy, asked).boxed());
            if answered {
                continue;
            }
            let forwarded = right(PORT_FORWARD).guard(proxies::port_forward(cluster, target, pod, port));
            let through = Probe { vantage: Vantage::PortForward, ..base.clone() };
            pending.push(fill(through, Input::PortForward, forwarded).boxed());
            if seen.stand.node.is_some() {
                let dialled = from_here(&base, ip);
                let asked = Probe { vantage: Vantage::SmallPackets, ..dialled.clone() };
                pending.push(to_pod(dialled, ip, target, DIAL_LIMIT).boxed());
                pending.push(fill(asked, Input::NodeSettings, in_small_packets(ip, port, target)).boxed());
            }
        }
        let Some(port) = node_port(&index, target).filter(|_| !answered) else { continue };
        let name = target.to_string();
        let quiet = seen.probes.iter().filter(|p| {
            p.vantage == Vantage::Client
                && p.target.as_deref() == Some(&name)
                && matches!(p.outcome, Outcome::Silent | Outcome::Stalled)
        });
        for (probe, ip) in quiet.filter_map(|p| Some((p, p.host.parse().ok()?))) {
            let asked = Probe { vantage: Vantage::SmallPackets, ..probe.clone() };
            pending.push(fill(asked, Input::ClientProbe, in_small_packets(ip, port, target)).boxed());
        }
        for name in seen.objects.nodes.iter().take(MOST).map(node::name) {
            let base = Probe { node: Some(name.to_owned()), ..probe(Vantage::NodeProxy, target, name, port) };
            let asked = right("nodes/proxy").guard(proxies::node(cluster, target, name, port));
            pending.push(fill(base, Input::NodeProxy, asked).boxed());
        }
    }
    let broken = seen.targets.iter().any(|t| !answered(seen, t));
    let right = |resource| Right { rights: rights.clone(), namespace: KUBE_SYSTEM, resource };
    for pod in seen.objects.kube_proxy_pods.iter().filter(|p| broken && pod::is_running(p)).take(MOST) {
        let name = pod::name(pod);
        let health = Probe {
            vantage: Vantage::PodProxy,
            target: None,
            host: format!("{KUBE_SYSTEM}/{name}"),
            port: proxy::HEALTH_PORT,
            node: pod::node(pod).map(str::to_owned),
            pod: Some(name.to_owned()),
            outcome: Outcome::Timeout,
            millis: 0,
        };
        let inside = Probe { vantage: Vantage::PortForward, port: proxy::METRICS_PORT, ..health.clone() };
        let asked = right("pods/proxy").guard(proxies::kube_proxy(cluster, name));
        pending.push(fill(health, Input::PodProxy, asked).boxed());
        if !pod::node(pod).is_some_and(|on| node::is_silent(&seen.objects.nodes, on)) {
            let asked = right(PORT_FORWARD).guard(proxies::kube_proxy_inside(cluster, name));
            pending.push(fill(inside, Input::PortForward, asked).boxed());
        }
    }
    if broken {
        let ports = controls(seen, &index, cluster.server_port);
        let each = seen.addresses.iter().take(2).flat_map(|address| ports.iter().map(move |port| (address, *port)));
        pending.extend(each.map(|(address, port)| control(address, port).boxed()));
    }
    join_all(pending).await
}

/// Ports of this machine that a fallback would listen on, and somebody else does. On a node it takes the node's own
/// port, and who listens there is seen.
pub async fn find_taken_ports(snapshot: &mut Snapshot) {
    if snapshot.stand.node.is_none() {
        let index = Index::of(snapshot);
        let broken = snapshot.targets.iter().filter(|t| !answered(snapshot, t));
        let wanted: Vec<_> =
            broken.filter_map(|t| Some((node_port(&index, t)?, t.path.clone(), t.marker.clone()))).collect();
        let taken = tokio::task::spawn_blocking(move || {
            // A forward of ours leads to the page, or keeps who asks waiting: it is nobody else.
            let own = |outcome: &Outcome| {
                outcome.is_right() || matches!(outcome, Outcome::Silent | Outcome::Http { status: 503, .. })
            };
            let others = wanted.iter().filter(|(port, path, marker)| {
                let leads = || ask(LOOPBACK, *port, path, marker.as_deref(), GLANCE_LIMIT);
                environment::is_taken(*port) && !leads().is_ok_and(|(outcome, _)| own(&outcome))
            });
            others.map(|(port, ..)| *port).collect()
        });
        snapshot.client.taken_ports = taken.await.unwrap_or_default();
    }
}

/// Several pods take the connections, and of one of them at least nobody asks whether it is ready.
fn is_doubtful(service: &ServiceFacts<'_>) -> bool {
    let pods: Vec<_> = service.usable().filter_map(|e| service.pod_of(e)).collect();
    let asked = |p: &&crate::model::pod::Pod| pod::containers(p).iter().any(|c| c.readiness_probe.is_some());
    pods.len() > 1 && !pods.iter().all(asked)
}

/// The port a browser dials: the nodePort that the target is expected at, else the one the Service has.
fn node_port(index: &Index<'_>, target: &Target) -> Option<u16> {
    let of_service = || {
        let facts = ServiceFacts::derive(index, target)?;
        u16::try_from(facts.port?.1.node_port?).ok()
    };
    target.node_port.or_else(of_service)
}

/// Whether the page answered where it was dialled first.
pub fn answered(snapshot: &Snapshot, target: &Target) -> bool {
    let name = target.to_string();
    let mine = |vantage| {
        let found = snapshot.probes.iter().filter(move |p| p.vantage == vantage);
        found.filter(|p| p.target.as_deref() == Some(&name)).map(|p| p.outcome.is_right()).collect::<Vec<_>>()
    };
    // Where the outsider could look, it decides: a dial from the node itself proves less.
    match mine(Vantage::Outsider).as_slice() {
        [] => mine(Vantage::Client).first().copied().unwrap_or(false),
        outsider => outsider.iter().all(|right| *right),
    }
}

async fn client(address: &Address, target: &Target, port: u16, limit: Duration) -> Result<Probe, Gap> {
    let base = Probe { node: address.node.clone(), ..probe(Vantage::Client, target, &address.ip.to_string(), port) };
    let (ip, path, marker) = (address.ip, target.path.clone(), target.marker.clone());
    fill(base, Input::ClientProbe, blocking(move || ask(ip, port, &path, marker.as_deref(), limit))).await
}

/// The page, asked for in small packets.
#[cfg(target_os = "linux")]
async fn in_small_packets(ip: std::net::IpAddr, port: u16, target: &Target) -> Tried {
    let (path, marker) = (target.path.clone(), target.marker.clone());
    let work = move || {
        let host = SocketAddr::new(ip, port).to_string();
        let ask = Ask { host: &host, path: Some(&path), marker: marker.as_deref() };
        super::dial::in_small_packets(ip, port, &ask, DIAL_LIMIT)
            .map_err(|error| GapReason::Failed { message: error.to_string() })
    };
    blocking(work).await
}

/// Elsewhere a socket's segment size cannot be set before it connects.
#[cfg(not(target_os = "linux"))]
async fn in_small_packets(_ip: std::net::IpAddr, _port: u16, _target: &Target) -> Tried {
    Err(GapReason::NothingThere)
}

/// What a browser sees that knows the environment's proxy and no exception for this address.
async fn through_proxy(
    proxy: &HttpProxy,
    address: &Address,
    target: &Target,
    port: u16,
    limit: Duration,
) -> Result<Probe, Gap> {
    let base = probe(Vantage::HttpProxy, target, &address.ip.to_string(), port);
    let base = Probe { node: address.node.clone(), ..base };
    let authority = format!("{}:{port}", address.url_host());
    let (proxy, path, marker) = (proxy.host.clone(), target.path.clone(), target.marker.clone());
    let work = move || environment::through(&proxy, &authority, &path, marker.as_deref(), limit);
    fill(base, Input::HttpProxy, blocking(work)).await
}

/// A port that says something about the way to the address, not about a target.
async fn control(address: &Address, port: u16) -> Result<Probe, Gap> {
    let ip = address.ip;
    let base = Probe {
        vantage: Vantage::Client,
        target: None,
        host: ip.to_string(),
        port,
        node: address.node.clone(),
        pod: None,
        outcome: Outcome::Timeout,
        millis: 0,
    };
    let asked = move || Ok(dial(ip, port, &Ask { host: "", path: None, marker: None }, DIAL_LIMIT));
    fill(base, Input::ClientProbe, blocking(asked)).await
}

/// Ports of an address that tell whether the address or only the page's port is closed to us: the API server's, a node's
/// SSH, which most that is dialled from outside has open, another Service's nodePort, and one of that range that none uses.
fn controls(snapshot: &Snapshot, index: &Index<'_>, server_port: u16) -> BTreeSet<u16> {
    let ports = snapshot.objects.services.iter().filter_map(|s| s.spec.as_ref()?.ports.as_ref()).flatten();
    let used = ports.filter(|p| p.protocol.as_deref().is_none_or(|name| name == "TCP"));
    let used: BTreeSet<u16> = used.filter_map(|p| u16::try_from(p.node_port?).ok()).collect();
    let pages: BTreeSet<u16> = snapshot.targets.iter().filter_map(|t| node_port(index, t)).collect();
    let unallocated = (30_000..=32_767).rev().find(|p| !used.contains(p) && !pages.contains(p));
    let other = used.difference(&pages).next().copied();
    [Some(server_port), Some(SSH), other, unallocated].into_iter().flatten().collect()
}

#[cfg(target_os = "linux")]
async fn outsiders(snapshot: &Snapshot, limit: Duration) -> Vec<Result<Probe, Gap>> {
    use super::outsider::Outsider;
    let Some(own) = snapshot.stand.node.as_deref().filter(|_| snapshot.stand.root) else {
        return Vec::new();
    };
    let gap =
        |message: String| Gap { input: Input::OutsiderProbe, subject: None, reason: GapReason::Failed { message } };
    let index = Index::of(snapshot);
    // What is said of the address that browsers dial rests on this: it must be that one, or at least of its family.
    let dialled = Candidates::of(snapshot, &index).best();
    let node = snapshot.objects.nodes.iter().find(|n| node::name(n) == own);
    let Some(ip) = node.and_then(|n| node::own_address(n, snapshot.held_addresses(), dialled)) else {
        return vec![Err(gap(format!("node {own} has no InternalIP")))];
    };
    let outsider = match tokio::task::spawn_blocking(Outsider::open).await {
        Ok(Ok(outsider)) => Arc::new(outsider),
        Ok(Err(error)) => return vec![Err(gap(error.to_string()))],
        Err(error) => return vec![Err(gap(error.to_string()))],
    };
    let each = snapshot.targets.iter().filter_map(|target| {
        let port = node_port(&index, target)?;
        let base = probe(Vantage::Outsider, target, &ip.to_string(), port);
        let base = Probe { node: Some(own.to_owned()), ..base };
        let (outsider, path, marker) = (outsider.clone(), target.path.clone(), target.marker.clone());
        let work = blocking(move || {
            let failed = |error: std::io::Error| GapReason::Failed { message: error.to_string() };
            outsider.inside(|| ask(ip, port, &path, marker.as_deref(), limit)).map_err(failed)?
        });
        Some(fill(base, Input::OutsiderProbe, work))
    });
    join_all(each).await
}

fn ask(ip: std::net::IpAddr, port: u16, path: &str, marker: Option<&str>, limit: Duration) -> Tried {
    let host = SocketAddr::new(ip, port).to_string();
    Ok(dial(ip, port, &Ask { host: &host, path: Some(path), marker }, limit))
}

async fn blocking(work: impl FnOnce() -> Tried + Send + 'static) -> Tried {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(GapReason::Failed { message: error.to_string() }))
}

fn probe(vantage: Vantage, target: &Target, host: &str, port: u16) -> Probe {
    Probe {
        vantage,
        target: Some(target.to_string()),
        host: host.to_owned(),
        port,
        node: None,
        pod: None,
        outcome: Outcome::Timeout,
        millis: 0,
    }
}

/// What a way through the API server takes.
struct Right<'r, F: Future<Output = Arc<Rights>>> {
    rights: Shared<F>,
    namespace: &'r str,
    resource: &'static str,
}

impl<F: Future<Output = Arc<Rights>>> Right<'_, F> {
    /// What is tried, unless it is known to be refused.
    async fn guard(self, tried: impl Future<Output = Tried>) -> Tried {
        match self.rights.await.refusal(self.namespace, self.resource) {
            Some(reason) => Err(reason),
            None => tried.await,
        }
    }
}

/// Waits for a vantage and writes what it gave into the probe; what it could not give is a Gap.
async fn fill(base: Probe, input: Input, tried: impl Future<Output = Tried>) -> Result<Probe, Gap> {
    match tried.await {
        Ok((outcome, elapsed)) => {
            Ok(Probe { outcome, millis: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), ..base })
        }
        Err(reason) => Err(Gap { input, subject: Some(base.host), reason }),
    }
}

/// Files what a phase brought.
pub fn file(snapshot: &mut Snapshot, brought: Brought) {
    for result in brought {
        match result {
            Ok(probe) => snapshot.probes.push(probe),
            Err(gap) => snapshot.gaps.push(gap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, controls};
    use crate::check::sample::Sample;
    use serde_json::json;

    #[test]
    fn controls_are_no_page_s_port_and_each_is_there_once() {
        let mut sample = Sample::from_laptop();
        let asked = |sample: &Sample| {
            sample.with_facts(|facts| {
                controls(facts.snapshot, &Index::of(facts.snapshot), 6443).into_iter().collect::<Vec<_>>()
            })
        };
        assert_eq!(asked(&sample), [22, 6443, 32_767]);
        let port = |number: u16, protocol: &str| json!({"port": 80, "nodePort": number, "protocol": protocol});
        let other = json!({"metadata": {"name": "grafana", "namespace": "monitoring"},
            "spec": {"ports": [port(30_053, "UDP"), port(30_300, "TCP"), port(32_767, "TCP")]}});
        sample.add("services", other);
        assert_eq!(asked(&sample), [22, 6443, 30_300, 32_766]);
    }
}
