//! The page's packets on this node: before kube-proxy's translation, after it, and the answers; and what stops them.

use std::net::IpAddr;

use super::firewall::{Barrier, Packet, blame};
use super::node::cidr_contains;
use super::{Facts, ServiceFacts, TargetFacts, node};
use crate::model::firewall::Chain;
use crate::model::{Firewall, Host, NodePortRule};

/// Where the destination is translated (NF_IP_PRI_NAT_DST).
const TRANSLATION: i32 = -100;
/// Whatever a device of the outsider probe is called, it begins so.
const OUTSIDER_DEVICE: &str = "ba0";
/// A port that clients dial from (IANA's dynamic range).
const CLIENT_PORT: u16 = 50_000;
/// Pods of one Service whose packets are followed: the rules seldom tell them apart.
const MOST_PODS: usize = 6;
/// An address of the range that outsider probes dial from.
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 2));

/// At which part of their way packets are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    BeforeTranslation,
    ToThePod,
    Answers,
}

/// What stops the page's packets on the node we stand on.
#[derive(Debug, Clone, Copy)]
pub struct Stopped<'a> {
    pub node: &'a str,
    pub part: Part,
    pub barrier: Barrier<'a>,
    /// The pod and its port; none before the translation.
    pub pod: Option<(IpAddr, u16)>,
    /// It is there for packets of the uplink alone, so that a probe gets past it.
    pub unprobed: bool,
}

/// What stops the packets of strangers for this target, in the order that they meet it; as far as the rules and counters
/// of the firewall tell. Empty where the page answers. Where somebody took the probe's connection: what stops only those
/// that come in by the uplink.
pub fn stopped<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Vec<Stopped<'a>> {
    if target.reach.answers != Some(false) {
        return Vec::new();
    }
    find(facts, target).unwrap_or_default()
}

/// Whether the outsider probe got through, and yet packets that come in where strangers' do are surely stopped: rules
/// may tell the probe's device from the uplink.
pub fn is_barred(facts: &Facts<'_>, target: &TargetFacts<'_>) -> bool {
    let through = target.reach.outsider.iter().any(|p| p.outcome.is_right());
    target.reach.answers == Some(true) && through && find(facts, target).is_some_and(|found| !found.is_empty())
}

fn find<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Option<Vec<Stopped<'a>>> {
    let node = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n))?;
    let service = target.exposed().filter(|s| s.is_sound() && s.node_port() == target.reach.port)?;
    let host = facts.snapshot.host.as_ref()?;
    let firewall = host.firewall.as_ref()?;
    let outsider = &target.reach.outsider;
    if outsider.is_empty() {
        return None;
    }
    // Whoever took the connection, and however slowly the page comes: no rule on the way stopped the probe.
    let failed = !outsider.iter().any(|p| p.outcome.connected());
    let own = node::own_address(facts.node(node)?, &host.addresses, target.reach.address.map(|a| a.ip))?;
    // The rules that were read are those for IPv4.
    if own.is_ipv6() {
        return None;
    }
    let way = Way { node, own, host, firewall, service };
    let probe = Entry { device: OUTSIDER_DEVICE, source: Some(STRANGER), probed: true };
    let mut found = if failed { way.walk(&probe) } else { Vec::new() };
    // Nobody's packet was counted there: only what is sure counts.
    let uplink = host.devices.iter().find(|d| d.addresses.contains(&own));
    let uplink = uplink.map(|d| way.walk(&Entry { device: &d.name, source: None, probed: false })).unwrap_or_default();
    for other in uplink.into_iter().filter(|s| s.barrier.sure) {
        if !found.iter().any(|s| s.part == other.part) {
            found.push(other);
        }
    }
    found.sort_by_key(|s| s.part);
    Some(found)
}

/// Where packets of strangers come in.
struct Entry<'e> {
    device: &'e str,
    source: Option<IpAddr>,
    /// A probe came in by it, and the counters were read before and after.
    probed: bool,
}

struct Way<'w, 'a> {
    node: &'a str,
    own: IpAddr,
    host: &'a Host,
    firewall: &'a Firewall,
    service: &'w ServiceFacts<'a>,
}

impl<'a> Way<'_, 'a> {
    /// All that may stop packets which come in by this entry.
    fn walk(&self, entry: &Entry<'_>) -> Vec<Stopped<'a>> {
        let Self { node, own, host, firewall, service } = *self;
        // With externalTrafficPolicy Local kube-proxy itself drops what has no pod here; what would come next is seen as
        // it would be without that.
        let local = service.is_local() && service.usable().any(|e| e.node == Some(node));
        let rule = host.rules.as_ref().and_then(|r| r.node_port(service.node_port()?));
        let leads = |r: &NodePortRule| !r.backends.is_empty() && r.backends.iter().all(|b| service.leads_here(b));
        let led = host.rules.is_none() || rule.is_some_and(leads);
        let stranger = Packet {
            source: entry.source,
            in_device: Some(entry.device.to_owned()),
            held_up: !entry.probed,
            ..Packet::default()
        };
        let arriving = Packet { destination: Some(own), destination_port: service.node_port(), ..stranger.clone() };
        let stop = |part, barrier: Option<Barrier<'a>>, pod| {
            barrier.map(|barrier| Stopped { node, part, barrier, pod, unprobed: !entry.probed })
        };
        let mut found = Vec::new();
        found.extend(stop(Part::BeforeTranslation, blame(firewall, is_early, &arriving), None));
        let held_up = !entry.probed || !found.is_empty() || !led || (service.is_local() && !local);
        let pods = service.usable().filter(|e| e.ip != own).filter_map(|e| Some((e.ip, e.port?)));
        for (ip, port) in pods.take(MOST_PODS) {
            let device = device_to(host, ip).map(str::to_owned);
            let onward = Packet {
                destination: Some(ip),
                destination_port: Some(port),
                out_device: device.clone(),
                translated: true,
                masqueraded: !local,
                held_up,
                ..stranger.clone()
            };
            let onward = stop(Part::ToThePod, blame(firewall, is_late, &onward), Some((ip, port)));
            let back = Packet {
                source: Some(ip),
                source_port: Some(port),
                destination_port: Some(CLIENT_PORT),
                in_device: device,
                out_device: Some(entry.device.to_owned()),
                answer: true,
                translated: true,
                held_up: held_up || onward.is_some(),
                ..Packet::default()
            };
            found.extend(onward);
            // Until the masquerading is taken back, behind the first hook, answers go to this node or to the stranger.
            let arrived = blame(firewall, |c| matches!(c.hook.as_deref(), Some("ingress" | "prerouting")), &back);
            let back = Packet { destination: entry.source, ..back };
            let left = || blame(firewall, |c| matches!(c.hook.as_deref(), Some("forward" | "postrouting")), &back);
            found.extend(stop(Part::Answers, arrived.or_else(left), Some((ip, port))));
        }
        found
    }
}

fn is_early(chain: &Chain) -> bool {
    match chain.hook.as_deref() {
        Some("prerouting") => chain.priority < TRANSLATION,
        hook => hook == Some("ingress"),
    }
}

fn is_late(chain: &Chain) -> bool {
    match chain.hook.as_deref() {
        Some("prerouting") => chain.priority > TRANSLATION,
        hook => matches!(hook, Some("forward" | "postrouting")),
    }
}

/// The device that the most specific route to an address leads out of.
pub fn device_to(host: &Host, ip: IpAddr) -> Option<&str> {
    let length = |to: &str| to.split_once('/').map_or(32, |(_, length)| length.parse().unwrap_or(0));
    let fits = host.routes.iter().filter(|r| r.to.parse() == Ok(ip) || cidr_contains(&r.to, ip));
    let best = fits.max_by_key(|r| length(&r.to)).or_else(|| host.routes.iter().find(|r| r.to == "default"));
    best.map(|r| r.device.as_str())
}

/// The pod network that an address lies in, as the pod's node has it.
pub fn pod_network<'a>(facts: &Facts<'a>, service: &ServiceFacts<'_>, ip: IpAddr) -> Option<&'a str> {
    let endpoint = service.endpoints.iter().find(|e| e.ip == ip)?;
    let node = facts.node(endpoint.node?)?;
    node::pod_cidrs(node).into_iter().find(|c| cidr_contains(c, ip))
}
