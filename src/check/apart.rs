//! Whether packets get lost between the node that is dialled and that of the pod, although a route leads there.

use std::net::IpAddr;

use crate::check::Check;
use crate::facts::overlay::{Encapsulation, between};
use crate::facts::{Facts, TargetFacts, node};
use crate::model::{Finding, ObjectRef, Outcome, Probe};

/// A SYN that got no answer is sent again after one second.
const RETRANSMISSION: u64 = 950;

/// Two nodes between which packets of the pod network are lost.
pub(crate) struct Apart<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub pod: IpAddr,
    /// How the network plugin carries packets between them, where that is known.
    pub by: Option<Encapsulation>,
    probes: Vec<&'a Probe>,
}

/// The nodes, seen as root on the one that is dialled: it has a route to the pod, whose node is ready, and its packets
/// vanish, all or some.
pub(crate) fn apart<'a>(facts: &Facts<'a>, target: &TargetFacts<'a>) -> Option<Apart<'a>> {
    let from = facts.snapshot.stand.node.as_deref().filter(|n| target.reach.node == Some(n))?;
    let (service, host) = (target.stuck()?, facts.snapshot.host.as_ref()?);
    if service.is_local() || target.reach.answers != Some(false) {
        return None;
    }
    let probes: Vec<&Probe> = target.reach.node_to_pod.iter().copied().filter(|p| is_lossy(p)).collect();
    // The stranger's packet got lost as well: a page that is only slow answers in the end.
    let lost = target.reach.outsider.iter().any(|p| p.outcome.dropped());
    let endpoint = probes.iter().filter(|_| lost).find_map(|p| service.usable().find(|e| p.pod.as_deref() == e.pod))?;
    let to = endpoint.node.filter(|n| *n != from)?;
    let ready = facts.node(to).is_some_and(node::is_ready);
    let unrouted = host.unrouted_pod_cidrs.iter().any(|c| node::cidr_contains(c, endpoint.ip));
    if !ready || unrouted {
        return None;
    }
    Some(Apart { from, to, pod: endpoint.ip, by: between(facts, host, to, endpoint.ip), probes })
}

fn is_lossy(probe: &Probe) -> bool {
    matches!(probe.outcome, Outcome::Timeout) || (probe.outcome.is_right() && probe.millis >= RETRANSMISSION)
}

impl Apart<'_> {
    /// The finding with the failed dials as evidence; arguments `from`, `to` and `pod`.
    pub(crate) fn found(&self, check: &Check, target: &TargetFacts<'_>) -> Finding {
        let found = check.found(target, ObjectRef::cluster("Node", self.from)).with("from", self.from);
        let found = found.with("to", self.to).with("pod", self.pod);
        found.because_of(self.probes.iter().copied()).because_of(target.reach.failure())
    }
}
