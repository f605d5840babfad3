//! What the probes of one target say together: does the page answer where a browser dials, and where else.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::model::{Address, AddressSource, Outcome, Probe, Snapshot, Target, Vantage};

use super::{Index, ServiceFacts, node, pod};

/// Any machine answers there: it says that an address is reached, not whose it is.
pub const SSH: u16 = 22;

/// The probes of one target, sorted by vantage.
pub struct Reach<'a> {
    /// Dials of candidate addresses from where the command runs.
    pub client: Vec<&'a Probe>,
    /// Dials through the outsider namespace to this node.
    pub outsider: Vec<&'a Probe>,
    pub pod_proxy: Vec<&'a Probe>,
    pub node_proxy: Vec<&'a Probe>,
    pub port_forward: Vec<&'a Probe>,
    pub node_to_pod: Vec<&'a Probe>,
    /// Dials of pods from a pod of ours on the node that the address leads to.
    pub probe_pod: Vec<&'a Probe>,
    /// Dials of addresses and pods from here that asked for the page in small packets.
    pub small: Vec<&'a Probe>,
    /// Requests through the HTTP proxy of the environment.
    pub http_proxy: Vec<&'a Probe>,
    /// The address a browser should use: a public one before a private one, one that answers before one that does not.
    pub address: Option<&'a Address>,
    /// The node that address leads to: known, or the only control-plane node where the API server is behind it.
    pub node: Option<&'a str>,
    /// The port a browser dials: the one expected of a page that may be made a NodePort, else the Service's nodePort.
    pub port: Option<u16>,
    /// A forward of ours listens there: what refuses may be the forward, and not what is behind it.
    pub is_ours: bool,
    /// Whether the page answers at `address` as far as this standpoint can tell: on a node as root the outsider
    /// probe decides, elsewhere the client's dial. None where nobody could look.
    pub answers: Option<bool>,
    /// The application itself fails (HTTP 500 and above), wherever it is asked. The way to it is open, so `answers` is
    /// true.
    pub own_error: bool,
    /// The probes that `answers` rests on.
    pub decisive: Vec<&'a Probe>,
}

/// The addresses a browser may dial, in classes: the same for all targets.
pub struct Candidates<'a> {
    /// Those to choose from, each with its class and the node that it leads to.
    all: Vec<Candidate<'a>>,
    by_ip: HashMap<IpAddr, Vec<usize>>,
    by_host: HashMap<&'a str, Vec<usize>>,
    /// Those that lead to the node we stand on.
    own: Vec<usize>,
    /// The one to speak of where none answers.
    first: Option<usize>,
}

struct Candidate<'a> {
    class: u8,
    address: &'a Address,
    node: Option<&'a str>,
}

impl Candidate<'_> {
    fn rank(&self) -> (u8, AddressSource, IpAddr) {
        (self.class, self.address.source, self.address.ip)
    }
}

impl<'a> Candidates<'a> {
    /// What the user typed overrides all. On a node its own addresses come first, since that is where the repair is made;
    /// elsewhere one that answers. InternalIPs only where nothing else is known.
    pub fn of(snapshot: &'a Snapshot, index: &Index<'a>) -> Self {
        let here = snapshot.stand.node.as_deref();
        let server = server_ip(snapshot);
        let classed = snapshot.addresses.iter().filter_map(|address| {
            Some(Candidate { class: class(server, address)?, address, node: leads_to(index, address) })
        });
        let mut all: Vec<Candidate<'_>> = classed.collect();
        if all.iter().any(|c| c.class == TYPED) {
            all.retain(|c| c.class == TYPED);
        } else if here.is_some() && all.iter().any(|c| c.node == here) {
            all.retain(|c| c.node == here);
        }
        if all.iter().any(|c| c.class < INTERNAL) {
            all.retain(|c| c.class < INTERNAL);
        }
        let mut found = Self {
            first: (0..all.len()).min_by_key(|at| all[*at].rank()),
            own: (0..all.len()).filter(|at| here.is_some() && all[*at].node == here).collect(),
            all,
            by_ip: HashMap::new(),
            by_host: HashMap::new(),
        };
        for (at, candidate) in found.all.iter().enumerate() {
            found.by_ip.entry(candidate.address.ip).or_default().push(at);
            if let Some(host) = candidate.address.host.as_deref() {
                found.by_host.entry(host).or_default().push(at);
            }
        }
        found
    }

    /// The best address, as long as none is known to answer.
    pub fn best(&self) -> Option<IpAddr> {
        self.first.map(|at| self.all[at].address.ip)
    }

    /// The best of those that answer, else the best. An address that nobody dialled answers nobody.
    fn choose(&self, dialled: &[&Probe], answers: impl Fn(&Candidate<'a>) -> Option<bool>) -> Option<&Candidate<'a>> {
        let at_host = |p: &&Probe| {
            let by_ip = p.host.parse().ok().and_then(|ip: IpAddr| self.by_ip.get(&ip));
            by_ip.into_iter().chain(self.by_host.get(p.host.as_str())).flatten().copied().collect::<Vec<_>>()
        };
        let judged: BTreeSet<usize> = dialled.iter().flat_map(at_host).chain(self.own.iter().copied()).collect();
        let answering = judged.into_iter().map(|at| &self.all[at]).filter(|c| answers(c) == Some(true));
        answering.min_by_key(|c| c.rank()).or_else(|| self.first.map(|at| &self.all[at]))
    }
}

impl<'a> Reach<'a> {
    /// Sorts the probes of this target.
    pub fn derive(
        snapshot: &'a Snapshot,
        index: &Index<'a>,
        candidates: &Candidates<'a>,
        target: &Target,
        service: Option<&ServiceFacts<'a>>,
    ) -> Self {
        let made = index.probes(&target.to_string());
        let of = |vantage: Vantage| -> Vec<&'a Probe> {
            let mut probes: Vec<&Probe> = made.iter().copied().filter(|p| p.vantage == vantage).collect();
            probes.sort_by(|a, b| (&a.host, a.port, &a.pod).cmp(&(&b.host, b.port, &b.pod)));
            probes
        };
        let mut reach = Self {
            client: of(Vantage::Client),
            outsider: of(Vantage::Outsider),
            pod_proxy: of(Vantage::PodProxy),
            node_proxy: of(Vantage::NodeProxy),
            port_forward: of(Vantage::PortForward),
            node_to_pod: of(Vantage::NodeToPod),
            probe_pod: of(Vantage::ProbePod),
            small: of(Vantage::SmallPackets),
            http_proxy: of(Vantage::HttpProxy),
            address: None,
            node: None,
            port: None,
            is_ours: false,
            answers: None,
            own_error: false,
            decisive: Vec::new(),
        };
        // A page that is meant to be at a port is judged there. Another one is where its Service put it, unless only
        // the expected port was dialled.
        let dialled = |port: Option<u16>| {
            port.filter(|p| reach.client.iter().chain(&reach.outsider).any(|probe| probe.port == *p))
        };
        let own = service.and_then(ServiceFacts::node_port);
        let meant = target.node_port.filter(|_| target.may_become_node_port());
        let found = || dialled(own).or_else(|| dialled(target.node_port)).or(own).or(target.node_port);
        reach.port = meant.or_else(found);
        let port = reach.port;
        let chosen = candidates.choose(&reach.client, |c| reach.judge(snapshot, c.address, c.node, port).0);
        if let Some(Candidate { address, node, .. }) = chosen {
            (reach.answers, reach.decisive) = reach.judge(snapshot, address, *node, port);
            (reach.address, reach.node) = (Some(*address), *node);
        }
        let here = snapshot.stand.node.as_deref();
        reach.is_ours = here.is_some() && reach.node == here && port.is_some_and(|p| snapshot.is_ours(p));
        reach.own_error = reach.answers == Some(false) && service.is_some_and(|s| reach.is_own_error(s));
        if reach.own_error {
            reach.answers = Some(true);
        }
        reach
    }

    /// Whether the right application answers on this port of the chosen address, which need not be the Service's own.
    pub fn answers_on(&self, snapshot: &'a Snapshot, port: u16) -> Option<bool> {
        self.address.and_then(|address| self.judge(snapshot, address, self.node, Some(port)).0)
    }

    fn judge(
        &self,
        snapshot: &Snapshot,
        address: &Address,
        node: Option<&str>,
        port: Option<u16>,
    ) -> (Option<bool>, Vec<&'a Probe>) {
        let Some(port) = port else { return (None, Vec::new()) };
        let here = snapshot.stand.node.as_deref();
        let on_this_node = here.is_some() && node == here;
        let dialled = |probes: &[&'a Probe], wanted: &dyn Fn(&Probe) -> bool| -> Vec<&'a Probe> {
            probes.iter().copied().filter(|p| p.port == port && wanted(p)).collect()
        };
        let at_address = |p: &Probe| same_host(&p.host, address);
        if on_this_node {
            let outsider = dialled(&self.outsider, &|p| p.node.is_none() || p.node.as_deref() == here);
            if !outsider.is_empty() {
                return (Some(outsider.iter().any(|p| p.outcome.is_right())), outsider);
            }
            // A dial of this node's own public address turns round somewhere outside, if at all; one of its own
            // InternalIP passes OUTPUT instead of PREROUTING: it proves less, but it is all there is.
            let own = |p: &Probe| is_own(snapshot, here, &p.host);
            let own = dialled(&self.client, &own);
            let reached: Vec<&Probe> =
                dialled(&self.client, &at_address).into_iter().filter(|p| p.outcome.is_right()).collect();
            if !reached.is_empty() {
                return (Some(true), reached);
            }
            return (verdict(&own), own);
        }
        let dials = dialled(&self.client, &at_address);
        (verdict(&dials), dials)
    }

    /// Outcome of the decisive probes, where they failed: the first that is not right.
    pub fn failure(&self) -> Option<&'a Probe> {
        match self.answers {
            Some(false) => self.decisive.iter().copied().find(|p| !p.outcome.is_right()),
            _ => None,
        }
    }

    /// The page does not answer, and not because packets vanish or the way is missing: somebody turns them away who is
    /// not ours.
    pub fn is_turned_away(&self) -> bool {
        self.answers == Some(false)
            && !self.is_ours
            && self.decisive.iter().any(|p| matches!(p.outcome, Outcome::Refused))
    }

    /// What came along the open way, where it is not the page and the pods themselves say the like: the dial that
    /// arrived, and those of the pods.
    pub fn own_answer(&self, service: &ServiceFacts<'_>) -> Option<(&'a Probe, Vec<&'a Probe>)> {
        // A mesh's proxy before the application may have answered in its stead: only past it the application is heard.
        if self.port_forward.is_empty() && service.live_pods().any(pod::is_meshed) {
            return None;
        }
        let strange = |p: &&Probe| matches!(p.outcome, Outcome::Http { right: false, .. } | Outcome::NotHttp);
        let arrived = self.decisive.iter().copied().find(strange)?;
        let pods = self.at_pods().chain(self.port_forward.iter().copied());
        let pods: Vec<&Probe> = pods.collect();
        (!pods.is_empty() && pods.iter().all(strange)).then_some((arrived, pods))
    }

    fn is_own_error(&self, service: &ServiceFacts<'_>) -> bool {
        let fails = |p: &Probe| matches!(p.outcome, Outcome::Http { status: 500.., .. });
        self.own_answer(service).is_some_and(|(arrived, pods)| fails(arrived) && pods.into_iter().all(fails))
    }

    /// Probes made of the pods' addresses: through the API server, from this node, from a pod of ours.
    pub fn at_pods(&self) -> impl Iterator<Item = &'a Probe> {
        self.pod_proxy.iter().chain(&self.node_to_pod).chain(&self.probe_pod).copied()
    }

    /// Those of one pod.
    pub fn to_pod<'s>(&'s self, pod: &'s str) -> impl Iterator<Item = &'a Probe> + 's {
        self.at_pods().filter(move |p| p.pod.as_deref() == Some(pod))
    }

    /// What the API server's proxy says of the nodePort on one node.
    pub fn through_node(&self, node: &str) -> Option<&'a Probe> {
        let of_node = |p: &&&Probe| p.node.as_deref() == Some(node) || p.host == node;
        self.node_proxy.iter().filter(|p| Some(p.port) == self.port).find(of_node).copied()
    }
}

fn verdict(probes: &[&Probe]) -> Option<bool> {
    (!probes.is_empty()).then(|| probes.iter().any(|p| p.outcome.is_right()))
}

pub(super) fn same_host(host: &str, address: &Address) -> bool {
    host.parse() == Ok(address.ip) || address.host.as_deref() == Some(host)
}

fn is_own(snapshot: &Snapshot, here: Option<&str>, host: &str) -> bool {
    let listed = snapshot.host.as_ref().is_some_and(|h| h.addresses.iter().any(|a| host.parse() == Ok(*a)));
    let own = snapshot.objects.nodes.iter().find(|n| Some(node::name(n)) == here);
    listed || own.is_some_and(|n| node::internal_ips(n).contains(&host))
}

/// The node behind an address. The API server's own addresses lead to the control-plane node, where there is only one.
fn leads_to<'a>(index: &Index<'a>, address: &'a Address) -> Option<&'a str> {
    if let Some(known) = address.node.as_deref() {
        return Some(known);
    }
    if let Some(here) = index.here(address.ip) {
        return Some(here);
    }
    if let Some(owner) = index.owner(&address.ip.to_string()) {
        return Some(node::name(owner));
    }
    let of_server = matches!(address.source, AddressSource::Kubeconfig | AddressSource::CertificateSan);
    index.only_control_plane().filter(|_| of_server).map(node::name)
}

const TYPED: u8 = 0;
const INTERNAL: u8 = 3;

/// Typed, public, private but made for clients, InternalIP; none for addresses that no browser elsewhere can use.
fn class(server: Option<IpAddr>, address: &Address) -> Option<u8> {
    let unusable = address.ip.is_loopback() || address.ip.is_unspecified();
    match address.source {
        AddressSource::Flag => Some(TYPED),
        _ if unusable => None,
        _ if !is_private(address.ip) => Some(1),
        // The certificate also names the Service `kubernetes` and nodes' own addresses.
        AddressSource::CertificateSan => None,
        // The API server's address was given to clients on purpose, be it a node's own.
        AddressSource::InternalIp if server != Some(address.ip) => Some(INTERNAL),
        _ => Some(2),
    }
}

/// The address of the API server, where it is dialled by address.
fn server_ip(snapshot: &Snapshot) -> Option<IpAddr> {
    let host = snapshot.stand.server.rsplit_once(':').map_or("", |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}

/// RFC 1918, RFC 6598, RFC 3927 and RFC 4193/4291 addresses: no route leads to them from elsewhere.
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.segments()[0] & 0xfe00 == 0xfc00 || ip.segments()[0] & 0xffc0 == 0xfe80
        }
    }
}
